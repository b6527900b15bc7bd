"""The choice of the next token, for a whole batch of sequences at once.

The stages and their order are libllama's: logit bias, penalties, DRY, top-n-sigma, top-k, typical-p, top-p, min-p, XTC,
and the temperature last, so that a high temperature picks among the plausible tokens only. Rows are grouped by how much
of the vocabulary has to be looked at, and each group is computed as one block with its parameters as columns; a stage
that is off for a row leaves it bit for bit as it was.

What a row gets is a pure function of its logits and its `Choice`: sums run over a row in a fixed order, so neighbours
do not show in it, and the randomness depends on the seed and the token's position only. A sequence draws the same
tokens alone, in company, or evaluated again after an interruption.
"""

from inferno_runtime.engine.sampling.batch import SamplingError, sample
from inferno_runtime.engine.sampling.choice import Choice, History
from inferno_runtime.engine.sampling.randomness import uniform

__all__ = ["Choice", "History", "SamplingError", "sample", "uniform"]
