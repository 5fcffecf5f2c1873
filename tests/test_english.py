"""Phrases that a reader has to read twice do not come back: code, messages and docs are searched for them.

A phrase matches as whole words, in any case, also over a line break. Write what stands on the right instead.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INSTEAD = {
    "gone on with": "resumed",
    "goes on with": "resumes",
    "go on with": "resume",
    "going on with": "resuming",
    "goes on": "continues, resumes",
    "went on": "continued, resumed",
    "go on": "continue, resume",
    "anew": "again",
    "is no folder": "is not a folder",
    "is no file": "is not a file",
    "is no log": "is not a log",
    "is no size": "is not a size",
    "is none of": "is not one of",
    "those of": "repeat the noun",
    "that of": "repeat the noun",
    "those that": "repeat the noun",
    "what there is": "say what exists",
    "comes to": "reaches, becomes",
    "come to": "reached, became",
    "beside": "next to, besides",
    "whatever the": "for any",
    "is of no use": "is not used, cannot be used",
    "is told": "is reported",
    "are told": "are reported",
    "tells of": "reports",
    "than there is": "name both numbers",
    "than there are": "name both numbers",
}
SEARCHED = (
    "*.md",
    "docs/*.md",
    "criteo_prep/**/*.py",
    "dlrm_tf2/**/*.py",
    "dlrm_tf2/ops/src/**/*",
    "dlrm_tf2/ops/*.txt",
    "demo/*.py",
    "examples/*.py",
    "bench/**/*.py",
    "setup/*",
)
FILES = sorted({path for pattern in SEARCHED for path in ROOT.glob(pattern) if path.is_file()})


def banned_phrases(text: str) -> list[str]:
    """`line N: "phrase", write ...` for every banned phrase in a text."""
    found = []
    for phrase, instead in INSTEAD.items():
        # A phrase may be broken over two lines, with the comment sign or the quotes of the next line in between.
        gap = r"(?:\s+|\s*\n\s*(?:#|//|\*|f?\")?\s*|\s?\"\s*\n\s*f?\")"
        pattern = rf"(?<![\w-]){gap.join(re.escape(word) for word in phrase.split())}(?![\w-])"
        for match in re.finditer(pattern, text, re.IGNORECASE):
            found.append(f"line {text.count(chr(10), 0, match.start()) + 1}: {phrase!r}, write: {instead}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_phrase(path):
    assert banned_phrases(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("text", [
    "What an earlier run left is gone on with.", "an ANEW one", "such as those\n    of the ranks", "# it comes\n# to 5",
    'f"it is made "\n    f"anew, it goes "\n    f"on"',
])  # fmt: skip
def test_a_planted_phrase_is_found(text):
    assert banned_phrases(text)


@pytest.mark.parametrize("text", ["on top of the table", "the ongoing run", "a renewed lease", "besides the table"])
def test_other_words_are_left_alone(text):
    assert banned_phrases(text) == []
