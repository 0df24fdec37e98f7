"""The text of `--help`: examples, usage, a sentence about the command, and its flags by section."""

import dataclasses
import textwrap
from collections.abc import Collection, Iterator, Sequence

from absl import flags as absl_flags

from keras_bot.cli.commands import COMMANDS, SUBCOMMANDS
from keras_bot.errors import unknown
from keras_bot.recipe import TASKS, Recipe

WIDTH = 110
FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}


@dataclasses.dataclass(frozen=True)
class Help:
    """Help of one command.

    Attributes:
        command: name of the command.
        usage: the usage line.
        examples: command lines, which may end with a comment.
        about: sentences after the command's summary.
        effective_fields: recipe fields that have an effect on the command; None is all.
    """

    command: str
    usage: str
    examples: Sequence[str] = ()
    about: str = ""
    effective_fields: Collection[str] | None = None

    def text(self, flags: absl_flags.FlagValues, own: Sequence[str], *, task: str | None, everything: bool) -> str:
        """Returns the help.

        Args:
            flags: all flags of the command.
            own: names of the flags that are not recipe fields.
            task: lists the recipe fields that this task uses; None if the command has no recipe.
            everything: whether to list all of them, including the advanced ones and those without effect.

        Raises:
            MisuseError: if the task is unknown.
        """
        if task and task not in TASKS:
            raise unknown("task", task, TASKS)
        used = [name for name, field in FIELDS.items() if task and task in (field.metadata["tasks"] or TASKS)]
        listed = used if everything else [name for name in used if self._is_listed(name)]
        sections = [("Options", own), *_sections(listed)]
        lines = self._introduction()
        for title, names in sections:
            lines += ["", f"{title}:", *(line for name in names for line in _describe(flags[name], title != "Options"))]
        if task:
            lines += ["", *self._notes(listed, task, hidden=len(used) - len(listed))]
        return "\n".join(lines)

    def _is_listed(self, name):
        """Returns whether the short help lists a recipe field."""
        if self.effective_fields is not None:
            return name in self.effective_fields
        return not FIELDS[name].metadata["advanced"]

    def _introduction(self):
        summary = {**COMMANDS, **SUBCOMMANDS}[self.command]
        sentences = f"{summary[0].upper()}{summary[1:]}. {self.about}"
        title = "Example:" if len(self.examples) == 1 else "Examples:"
        examples = [title, *(f"  {example}" for example in self.examples), ""] if self.examples else []
        return [*examples, *self.usage.splitlines(), "", *textwrap.wrap(sentences, WIDTH)]

    def _notes(self, listed, task, hidden) -> Iterator[str]:
        """Yields the lines below the flags of a recipe; the last one points to the `hidden` flags."""
        if "task" in listed:
            others = ", ".join(f"`--help --task={other}`" for other in TASKS if other != task)
            yield f"Flags for other tasks: {others}."
        yield "--flagfile=FILE reads flags from a file, one per line. A later flag overrides an earlier one."
        yield "Brackets contain the default and, for numbers, the range."
        if hidden:
            effect = " that have no effect here" if self.effective_fields is not None else ""
            selected = "" if task == TASKS[0] else f" --task={task}"
            yield f"{hidden} more flags{effect}: keras-bot {self.command} --help=all{selected}"


def _sections(names):
    """Groups recipe fields by the section of the help, in the order of the recipe."""
    sections: list[tuple[str, list[str]]] = []
    for name, field in FIELDS.items():
        if field.metadata["section"]:
            sections.append((field.metadata["section"], []))
        if name in names:
            sections[-1][1].append(name)
    return [section for section in sections if section[1]]


def _describe(flag, is_field):
    """Returns the help lines of a flag."""
    facts = [] if flag.default in (None, "") or flag.default is False else [str(flag.default_as_str).strip("'")]
    if is_field and FIELDS[flag.name].metadata["bounds"].as_symbols():
        facts.append(FIELDS[flag.name].metadata["bounds"].as_symbols())
    brackets = "; ".join(facts).replace(" ", "\xa0")  # keeps them on one line
    text = f"--{flag.name:<20} {flag.help}" + (f" [{brackets}]" if brackets else "")
    lines = textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent=" " * 25)
    return [line.replace("\xa0", " ") for line in lines]
