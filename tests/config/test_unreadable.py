"""Words that are no override say how they are written, in the shell as well."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from mnist_exp.config.explain import translate
from mnist_exp.config.sweeps import reads

# What a shell makes words of: the sentence, and the way out.
UNREADABLE = {
    "hidden=[64, 32]": ("hidden=[64, 32] has spaces in it.", "Write 'hidden=[64,32]'"),
    "lr=1 hidden=[64, 32, 16] seed=1": ("hidden=[64, 32, 16] has spaces in it.", "Write 'hidden=[64,32,16]'"),
    "hidden=64, 128": ("hidden=64, 128 has spaces in it.", "Write hidden=64,128"),
    "hidden=64,": ("hidden=64, has brackets or commas too many", "Write hidden=64"),
    "hidden=64,,32": ("hidden=64,,32 has brackets or commas too many", "Write hidden=64,32"),
    "hidden=[64,]": ("hidden=[64,] has brackets or commas too many", "Write 'hidden=[64]'"),
    "hidden=[64,[32]": ("hidden=[64,[32] has brackets or commas too many, or too few.", "Write 'hidden=[64,[32]]'"),
    "'hidden=(64,32)'": ("hidden=(64,32) has brackets or commas too many", "Write 'hidden=[64,32]'"),
    "'hidden={16,32}'": ("braces", "hidden=16,32 is a sweep, with -m; 'hidden=[16,32]' is a list."),
    "hidden 64": ("'hidden' has no value.", "Write hidden=64"),
    "hidden = 64": ("'hidden' has no value.", "Write hidden=64"),
    "hidden =64": ("'hidden' has no value.", "Write hidden=64"),
    "hidden:64": ("'hidden:64' has no value.", "Write hidden=64"),
    "learning_rate 0.1": ("'learning_rate' has no value.", "Write lr=0.1"),
    "epochs seed=1": ("'epochs' has no value.", "Write epochs=…"),
    "hidden= 64": ("'64' stands alone, after hidden=.", "Write hidden=64"),
    "hidden=64 32": ("'32' stands alone, after hidden=64.", "Write hidden=64,32"),
    "name=my run": ("'run' stands alone, after name=my.", """'name="my run"'"""),
    "tpe": ("'tpe' is no override.", "key=value"),
    "'lr=intervall(1,2)'": ("there is no function intervall.", "Did you mean interval("),
    "hidden=16 ,32": ("',32' stands alone, after hidden=16.", "Write hidden=16,32"),
    "'hidden={16..18}'": ("braces", "Write 'hidden=range(16,19)'"),
    "'lr=loguniform(1e-4,1e-1)'": ("there is no function loguniform", "Write 'lr=tag(log,interval(1e-4,1e-1))'"),
    "'lr=log(interval(1e-4,1e-1))'": ("there is no function log", "Write 'lr=tag(log,interval(1e-4,1e-1))'"),
    "'lr=interval(1e-4,1e-1,log=true)'": ("two bounds", "Write 'lr=tag(log,interval(1e-4,1e-1))'"),
    "'lr=interval(1e-4)'": ("interval() is not called like that.", "Such as 'lr=interval(0.01,0.1)'"),
    "'hidden=range(16;32)'": ("range() is not called like that.", "Such as 'hidden=range("),
    "'hidden=64]'": ("hidden=64] has a sign that does not belong there.", "Write hidden=64"),
    "'hidden=[64,32]]'": ("a sign that does not belong there.", "Write 'hidden=[64,32]'"),
    "hidden==64": ("a sign that does not belong there.", "Write hidden=64"),
    "'hidden=64;32'": ("a sign that does not belong there.", "Write hidden=64,32"),
    "'hidden=)('": ("characters with a meaning of their own", "hidden: units of the hidden layer"),
    "'name=a (b'": ("characters with a meaning of their own", """quotes twice: 'name="a (b"'"""),
    "'name=foo(1)'": ("characters with a meaning of their own", """quotes twice: 'name="foo(1)"'"""),
    "'name=('": ("characters with a meaning of their own", """quotes twice: 'name="("'"""),
    "name=wide again": ("'again' stands alone, after name=wide.", """quotes twice: 'name="wide again"'"""),
    "+tags.why='a (b'": ("characters with a meaning of their own", """quotes twice: '+tags.why="a (b"'"""),
    "'model.norm=foo(1)'": ("there is no function foo.", "There are: choice, range"),
}  # fmt: skip


@pytest.mark.parametrize("typed", UNREADABLE)
def test_what_cannot_be_read_says_how_it_is_written(typed: str) -> None:
    words = shlex.split(typed)
    with pytest.raises(OverrideParseException) as caught:
        OverridesParser.create().parse_overrides(words)
    error = translate(caught.value, words)
    sentence, way_out = UNREADABLE[typed]
    assert sentence in error.message
    assert way_out in error.help
    written = error.help.partition("Write ")[2].removesuffix(", without spaces.").removesuffix(", a sweep, with -m.")
    assert all(reads(word) for word in shlex.split(written) if "…" not in word)
