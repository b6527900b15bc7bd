"""How models write calls of tools: a file for each way, and `choose`, which reads off a chat template which one it is."""

from inferno_runtime.chat.dialects.base import Dialect
from inferno_runtime.chat.dialects.deepseek import DeepSeek
from inferno_runtime.chat.dialects.function_xml import FunctionXml
from inferno_runtime.chat.dialects.generic import Generic
from inferno_runtime.chat.dialects.harmony import Harmony
from inferno_runtime.chat.dialects.hermes import Hermes
from inferno_runtime.chat.dialects.llama import Llama
from inferno_runtime.chat.dialects.mistral import Mistral

__all__ = ["Dialect", "Generic", "choose"]

# The more particular come first: a template of Qwen3-Coder has the tags of Hermes, too.
_NATIVE: tuple[type[Dialect], ...] = (Harmony, DeepSeek, Mistral, FunctionXml, Hermes, Llama)


def choose(template: str, *, knows_tools: bool) -> Dialect:
    """The dialect of a model with this chat template; the generic one where it describes no tools, or in a way not known here.

    knows_tools: whether the template has a place for tools.
    """
    for kind in _NATIVE:
        if kind.fits(template) and (knows_tools or kind is Harmony):
            return kind(template)
    return Generic(template)
