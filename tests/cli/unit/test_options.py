"""The rules for every option (DESIGN.md), held for each parameter of each verb."""

import enum
import re
import typing

import pytest

from edgeloop import cli, settings
from edgeloop.convert.compression.compress import CompressOptions
from edgeloop.convert.proof.prove import ProveOptions
from edgeloop.convert.search.search import SearchOptions
from edgeloop.edge.deploy.deploy_result import DeployOptions
from edgeloop.edge.measure.bench_comparison import CompareOptions
from edgeloop.edge.measure.bench_plan import BenchOptions
from edgeloop.edge.on_device.releases.protocol import Probation
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.edge.run.options import RunOptions
from edgeloop.errors import OptionsError
from edgeloop.processes.sandbox import Limits
from edgeloop.verb_loader import verb_command
from edgeloop.verbs import GROUPS, VERBS

# what a help text may begin with
BEGINNINGS = {
    "Accept", "Add", "Browse", "Check", "Cluster", "Compare", "Convert", "Deploy", "Divide", "End", "Enroll",
    "Fail", "Find", "Give", "Ignore", "Inspect", "Leave", "Let", "List", "Listen", "Load", "Log", "Look", "Measure",
    "Minimize", "Multiply", "Name", "Print", "Publish", "Read", "Refuse", "Remove", "Require", "Rescale", "Resize",
    "Roll", "Run", "Send", "Serve", "Set", "Show", "Shuffle", "Sign", "Simulate", "Split", "Stop", "Store",
    "Subtract", "Train", "Trust", "Use", "Verify", "Wait", "Write",
}  # fmt: skip
CHOICES = {
    "to", "schemes", "io", "tfjs-weights", "optimizer", "loss", "unproved", "runtime", "scenario", "driver", "fail-if",
    "target", "kind", "format", "method",
}  # fmt: skip
# a value that is given by its unit, and how the name of its option must end
UNITS = {"S": "-s", "MS": "-ms", "DAYS": "-days", "MB": "-mb"}
PRONOUNS = re.compile(r"\b(it|its own|them|there|that one)\.$")


def parameters():
    for name in VERBS:
        command = verb_command(name)
        for parameter in command.params:
            declared = command.declared.get(parameter.name, parameter)
            hint = command.hints.get(parameter.name)
            id = f"{name} {parameter.opts[-1] if parameter.param_type_name == 'option' else parameter.name}"
            yield pytest.param(name, parameter, declared, hint, id=id)


def long_name(parameter) -> str:
    (name,) = [flag.removeprefix("--") for flag in parameter.opts if flag.startswith("--")]
    return name


@pytest.mark.parametrize(("command", "parameter", "declared", "hint"), parameters())
def test_every_option_keeps_the_rules(command, parameter, declared, hint):
    text = declared.help
    assert text.split()[0] in BEGINNINGS, "help begins with a verb"
    assert text.endswith(".") and not text.endswith(".."), "help is whole sentences"
    for sentence in re.split(r"(?<=[.]) (?=[A-Z])", text):
        assert len(sentence.split()) > 2, f"clipped: {sentence}"
    assert not PRONOUNS.search(text), "a pronoun stands beside its noun"
    metavar = parameter.metavar
    if parameter.param_type_name == "argument":
        assert metavar is None or metavar.isupper()
        return
    name = long_name(parameter)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert not parameter.secondary_opts, "one flag says one thing: --no-x rather than --x/--no-x"
    takes_value = not (parameter.is_flag or parameter.count)
    if takes_value:
        assert metavar, "the value has a name"
        assert "DEVICE" not in metavar or name in {"on", "to", "prove-on"}, "a device is --on, one to deliver to --to"
        assert parameter.multiple or name != "on", "--on is repeatable"
        assert ("-o" in parameter.opts) == (name == "out"), "output is -o/--out"
        for unit, end in UNITS.items():
            assert (metavar == unit) == name.endswith(end), f"{unit} is written {end}"
        assert not re.search(r"\b(timeout|interval|seconds|memory|ram|size|bytes)\b", name) or name.endswith(
            tuple(UNITS.values())
        ), "a time or a size says its unit"
    is_device = "DEVICE" in (metavar or "")
    choice = settings.choice_of(hint) if hint is not None else None
    assert (choice is not None) == (name in CHOICES and not is_device), "a fixed choice is an enum"
    if choice is not None:
        assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", member.value) for member in choice)
    many = typing.get_origin(settings.plain(hint)) is list if hint is not None else False
    assert many == parameter.multiple


def test_runtimes_are_those_of_the_table():
    from edgeloop.edge.commands.choices import DeviceRuntimeName, RuntimeName
    from edgeloop.runtime.page_engines import PAGE_ENGINES
    from edgeloop.runtime_table import RUNTIMES

    assert [name.value for name in RuntimeName] == [*RUNTIMES, *PAGE_ENGINES]
    assert {name.value for name in DeviceRuntimeName} == set(RUNTIMES) - {"tensorflow"}
    assert issubclass(RuntimeName, enum.Enum)


@pytest.mark.parametrize("name", VERBS)
def test_a_summary_is_one_sentence_that_begins_with_a_verb(name):
    summary = VERBS[name].summary
    assert summary.endswith(".") and len(summary) <= 120
    assert summary.split()[0] in BEGINNINGS | {"Create", "Forecast", "Install", "Join", "Search"}


@pytest.mark.parametrize("name", VERBS)
def test_what_follows_a_summary_is_whole_sentences(name):
    for paragraph in (verb_command(name).help or "").split("\n\n")[1:]:
        for sentence in re.split(r"(?<=[.]) (?=[A-Z])", " ".join(paragraph.split())):
            assert sentence.endswith(".") and len(sentence.split()) > 2
            assert re.search(r"\b(is|are|has|have|stands?|lies?|holds?|runs?|ends?|needs?)\b", sentence), "no verb"


def commands_in_the_documents(root):
    """Every command line of edgeloop that a page shows, continued lines joined, without its comment."""
    for page in [root / "README.md", *root.glob("*/README.md"), *root.glob("docs/**/*.md")]:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"^ *(?:\$ )?edgeloop +((?:[a-z]+ )+[^#\n|]*)", text, re.MULTILINE):
            yield page.name, line


def test_every_option_that_the_documents_show_exists(root):
    shown = [(page, line) for page, line in commands_in_the_documents(root) if line.split()[0] in {*VERBS, *GROUPS}]
    assert len(shown) > 20
    for page, line in shown:
        words = line.split()
        command = verb_command(" ".join(words[:2]) if words[0] in GROUPS else words[0])
        known = {flag for parameter in command.params for flag in parameter.opts}
        unknown = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} - known
        assert not unknown, f"{page}: {line}"


def number_options(*kinds):
    """Verb and option of every number of these types."""
    for name in VERBS:
        command = verb_command(name)
        for parameter in command.params:
            kind = settings.plain(command.hints.get(parameter.name))
            if kind in kinds:
                yield pytest.param(name, long_name(parameter), id=f"{name} --{long_name(parameter)}")


# what a verb needs beside the option that is looked at
BESIDE = {
    "bench": ["m.tflite"],
    "browse": ["m"],
    "cache": ["--prune"],
    "check": ["local"],
    "compare": ["a.json", "b.json"],
    "convert": ["m.keras", "-o", "m", "--train-data", "t.npz", "--calibration", "c.npz", "--trainable"],
    "data write": ["d.npz", "-o", "d"],
    "demo": ["-o", "demo"],
    "doctor": ["train.toml"],
    "deploy": ["m", "--to", "local"],
    "distill": ["t.keras", "--student", "s.toml", "-o", "d"],
    "federate certificate": ["c", "--host", "h"],
    "federate run": ["m", "--shard", "s.npz", "-o", "rounds"],
    "federate simulate": ["f.toml", "-o", "rounds"],
    "run": ["local", "--follow", "http://localhost/m"],
    "same": ["a.keras", "b.tflite"],
    "train": ["train.toml", "-o", "run"],
    "tune search": ["t.toml", "--space", "s.toml", "-o", "d"],
}


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        pytest.param(*number.values, value, id=f"{number.id} {value}")
        for kind, values in ((float, ("nan", "inf", "-inf", "-1")), (int, ("-1",)))
        for number in number_options(kind)
        for value in values
    ],
)
def test_no_number_is_negative_or_without_an_end(name, option, value, capfd):
    assert cli.run([*name.split(), *BESIDE[name], f"--{option}", value]) == 2
    assert re.search(rf"--{option} is {value}\b.*It must be", capfd.readouterr().err)


def test_every_verb_that_was_given_such_numbers_has_one():
    assert {number.values[0] for number in number_options(float, int)} == {*BESIDE}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (BenchOptions, "timeout_s"),
        (CompareOptions, "margin"),
        (CompressOptions, "prune"),
        (DeployConstraints, "max_ram_bytes"),
        (DeployConstraints, "max_rmse"),
        (DeployConstraints, "min_accuracy"),
        (DeployOptions, "p90_budget_ms"),
        (DeployOptions, "timeout_s"),
        (Probation, "p90_budget_ms"),
        (Probation, "timeout_s"),
        (ProveOptions, "min_snr_db"),
        (RunOptions, "timeout_s"),
        (SearchOptions, "max_drop_pp"),
    ],
)
def test_options_of_the_library_refuse_such_numbers_too(kind, field, value):
    with pytest.raises(OptionsError, match="It must be"):
        kind(**{field: value})


def test_the_memory_limit_of_the_command_line_is_that_of_the_library():
    (option,) = [p for p in verb_command("convert").params if p.name == "memory_mb"]
    assert option.default == 2000 and Limits().read_bytes == 2_000_000_000 and Limits().work_bytes == 4 * 2_000_000_000
