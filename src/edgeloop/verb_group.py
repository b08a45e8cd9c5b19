"""The verbs below a prefix, or all of them, as one Typer command: their help page, and the nearest one to a typo."""

from __future__ import annotations

from typing import Any

import typer
import typer.core

from edgeloop import help_page, settings
from edgeloop.errors import OptionsError
from edgeloop.verb_command import EVERY_VERB
from edgeloop.verb_loader import as_command, verb_command
from edgeloop.verbs import GROUPS, VERBS, Panel


class VerbGroup(typer.core.TyperGroup):
    """The verbs below `prefix` in the table; a module is imported when its verb is called."""

    prefix = ""
    listing = False  # while completion lists verbs, no module is needed

    def list_commands(self, ctx: Any) -> list[str]:
        below = [name.removeprefix(self.prefix) for name in VERBS if name.startswith(self.prefix)]
        return list(dict.fromkeys(name.split()[0] for name in below))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = self.prefix + cmd_name
        if name in GROUPS:
            group = VerbGroup(name=cmd_name, help=GROUPS[name])
            group.prefix = f"{name} "
            return group
        if name not in VERBS:
            return None
        if self.listing:
            return typer.core.TyperCommand(cmd_name, help=VERBS[name].summary)
        return verb_command(name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if not ctx.resilient_parsing and args[0] not in known and not args[0].startswith("-"):
            raise OptionsError(
                f"{ctx.command_path} has no verb {args[0]!r}", advice=settings.suggestion(args[0], known)
            )
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            print(self.get_help(ctx), flush=True)
            raise typer.Exit(OptionsError.exit_code)
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self.listing = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self.listing = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[help_page.Row]] = {}
        for name in self.list_commands(ctx):
            verb = VERBS.get(self.prefix + name)
            panel = verb.panel if verb else next(v.panel for path, v in VERBS.items() if path.startswith(f"{name} "))
            heading = "Verbs" if self.prefix else panel.value
            sections.setdefault(heading, []).append((name, verb.summary if verb else GROUPS[name]))
        if not self.prefix:
            sections = {panel.value: sections[panel.value] for panel in Panel if panel.value in sections}
        sections.update(help_page.parameter_rows(self.get_params(ctx)))
        if not self.prefix:
            common = as_command("verb", _no_options).params
            sections[EVERY_VERB] = help_page.parameter_rows(common)[EVERY_VERB]
        formatter.write(help_page.page(f"{ctx.command_path} VERB [OPTIONS]", self.help or "", sections))


def _no_options(ctx: typer.Context) -> None:
    """A verb that has but the options of every verb."""
