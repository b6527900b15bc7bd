"""A GGUF model's vocabulary, loaded without its weights."""

import ctypes
import weakref
from pathlib import Path

from inferno_runtime.backends.base import Pair
from inferno_runtime.backends.llama_cpp.library import load
from inferno_runtime.backends.llama_cpp.model import context_train, open_model, stated_task
from inferno_runtime.backends.llama_cpp.pairs import Joined, Template


class LlamaVocabulary:
    """`Tokenizer` over libllama. The library's own functions are thread-safe for a model that nobody changes."""

    def __init__(self, path: Path) -> None:
        self._library = load()
        api = self._library.api
        self._tokenize = api.llama_tokenize
        model = open_model(self._library, path, vocabulary_only=True)
        # The model owns the vocabulary. At the process's end nobody need free it, and a thread may still use it.
        weakref.finalize(self, api.llama_model_free, model).atexit = False
        self._vocab = api.llama_model_get_vocab(model)
        size = api.llama_vocab_n_tokens(self._vocab)
        self.task = stated_task(self._library, model)
        self.context_train = context_train(self._library, model)
        self.pieces = [self._piece(token) for token in range(size)]
        self.end_tokens = frozenset(token for token in range(size) if api.llama_vocab_is_eog(self._vocab, token))
        self.controls = {
            token: spelling
            for token in range(size)
            if api.llama_vocab_get_attr(self._vocab, token)
            & (api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN)
            if (spelling := self.spelling(token))
        }
        self.control_spellings = frozenset(self.controls.values())
        self.bos = self.spelling(api.llama_vocab_bos(self._vocab))
        self.eos = self.spelling(api.llama_vocab_eos(self._vocab))
        self.infill = self._infill()
        template = api.llama_model_chat_template(model, None)
        self.chat_template = template.decode("utf-8", "replace") if template else None
        self._pairs = self._pairing(model)

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode()
        room = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * room)()
            count = self._tokenize(self._vocab, data, len(data), tokens, room, add_special, parse_special)
            if count >= 0:
                return tokens[:count]
            room = -count

    def encode_pair(self, query: str, document: str) -> Pair:
        return self._pairs.encode(
            query, document, lambda text, parse: self.encode(text, add_special=False, parse_special=parse)
        )

    def _pairing(self, model: object) -> Template | Joined:
        """How two texts become one input: by the file's own prompt for that, or by the tokens around a text."""
        api, vocab = self._library.api, self._vocab
        template = api.llama_model_chat_template(model, b"rerank")
        if template:
            return Template(template.decode("utf-8", "replace"), self.control_spellings)
        begin, end, separator = api.llama_vocab_bos(vocab), api.llama_vocab_eos(vocab), api.llama_vocab_sep(vocab)
        # BERT's, behind each of whose texts is a separator
        words = api.llama_vocab_type(vocab) == api.LLAMA_VOCAB_TYPE_WPM
        closing = [end] if api.llama_vocab_get_add_eos(vocab) else [separator] if words else []
        parting = [separator] if api.llama_vocab_get_add_sep(vocab) and not words else []
        opening = [begin] if api.llama_vocab_get_add_bos(vocab) else []
        return Joined(*([token for token in part if token >= 0] for part in (opening, closing + parting, closing)))

    def spelling(self, token: int) -> str:
        if token < 0:  # libllama's "none"
            return ""
        text = self._library.api.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", "replace") if text else ""

    def _infill(self) -> tuple[int, int, int] | None:
        """As the file's metadata names them, or as libllama knows them by their spellings."""
        api, vocab = self._library.api, self._vocab
        prefix, suffix, middle = (
            read(vocab) for read in (api.llama_vocab_fim_pre, api.llama_vocab_fim_suf, api.llama_vocab_fim_mid)
        )
        return (prefix, suffix, middle) if min(prefix, suffix, middle) >= 0 else None

    def _piece(self, token: int) -> bytes:
        room = 128
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = self._library.api.llama_token_to_piece(self._vocab, token, buffer, room, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            room = -length
