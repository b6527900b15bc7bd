"""A GGUF model again, with its weights as 16-bit floats."""

from pathlib import Path

import gguf
import numpy as np

_SINGLE = 1  # dimensions of what stays in 32 bits: norms and biases


def as_floats(path: Path, target: Path) -> Path:
    """Write the model at `path` to `target`, with the numbers that its weights stand for."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        if field.name == "general.file_type":
            writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
            continue
        kind, *inner = field.types
        writer.add_key_value(field.name, field.contents(), kind, inner[-1] if inner else None)
    for tensor in reader.tensors:
        weights = gguf.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, weights if len(tensor.shape) == _SINGLE else weights.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
