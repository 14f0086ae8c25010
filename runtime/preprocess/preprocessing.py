"""Preprocessing as data: from a file that people have to the network's inputs.

Each kind is a record of the manifest, and what it computes depends on nothing else: it is the same
where a network is made and where it runs. A kind has:

takes: what people call its files.
suffixes: how their names end, in lower case.
inputs_of(path): the inputs that a file holds.
from_raw(x): the network's input of raw values [N, ...]; what is that already stays as it is.
"""

from edgedl.runtime.preprocess.audio import AudioPreprocessing
from edgedl.runtime.preprocess.characters import CharacterPreprocessing
from edgedl.runtime.preprocess.image import ImagePreprocessing
from edgedl.runtime.preprocess.sequence import SequencePreprocessing
from edgedl.runtime.preprocess.text import TextPreprocessing

Preprocessing = (
    ImagePreprocessing
    | SequencePreprocessing
    | AudioPreprocessing
    | TextPreprocessing
    | CharacterPreprocessing
)
