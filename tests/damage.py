"""Files of models that are damaged, and why they are refused."""

import nnlite as nn


def damaged(content, generator):
    """The bytes with some flipped, taken out or doubled; one in five is cut short as well."""
    content = bytearray(content)
    for _ in range(generator.integers(1, 6)):
        at = int(generator.integers(len(content)))
        match generator.integers(4):
            case 0:
                content[at] ^= 1 << int(generator.integers(8))
            case 1:
                content[at] = int(generator.integers(256))
            case 2:
                del content[at : at + int(generator.integers(1, 30))]
            case 3:
                content[at:at] = content[at : at + int(generator.integers(1, 30))]
    return bytes(content) if generator.random() < 0.8 else bytes(content[: int(generator.integers(len(content)))])


def refusal(path):
    """[why a model file is refused], or [] if it is read; any other exception escapes."""
    try:
        nn.load_model(path)
    except ValueError as error:
        return [str(error)]
    return []
