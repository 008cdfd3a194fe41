"""`manage.py bench`: how fast the real path is, as ratios to its neighbours on this machine."""

import time
from pathlib import Path

import psycopg2
import pymysql
from django.conf import settings

from opendata_ops.bench import lines, report
from opendata_ops.bench.findings import BROKEN, Finding
from opendata_ops.bench.ground import Ground, prepared
from opendata_ops.bench.plan import Plan
from pipelines.errors import PipelineError
from pipelines.management.base import DONE, FAILED, OpsCommand, refusal

FEWEST = 100


class Command(OpsCommand):
    help = (
        "Measure the real path side by side with bare bulk loads and with other loaders, against a local server and in a database of its own. "
        "Medians of interleaved pairs; takes the better part of an hour. Nothing of the city is touched."
    )

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.epilog = "exit codes: 0 every target met, 1 one was not or a line broke, 2 bad usage or no server"
        parser.add_argument("--only", action="append", choices=list(lines.GROUPS), help="only these lines; may be repeated")
        parser.add_argument("--pairs", type=int, default=0, help="interleaved pairs for each ratio (5; with --quick 2)")
        parser.add_argument("--rows", type=int, help="so many rows in every line, instead of its own number")
        parser.add_argument("--folder", type=Path, default=Path(settings.VAR_DIR) / "bench", help="where its files lie (var/bench)")
        parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works, not to quote")

    def act(self, **options) -> int:
        if options["rows"] is not None and options["rows"] < FEWEST:
            raise refusal(f"--rows must be at least {FEWEST}: with fewer, 5 % of them are nothing.")
        if options["pairs"] < 0:
            raise refusal("--pairs must be at least 1.")
        plan = Plan(pairs=options["pairs"] or (2 if options["quick"] else 5), rows=options["rows"], quick=options["quick"], say=self.say)
        noise, started = report.Noise(), time.monotonic()
        findings: list[Finding] = []
        with prepared(options["folder"]) as ground:
            [[version]] = ground.ask("show server_version")
            machine = report.machine(version)
            for name in options["only"] or lines.GROUPS:
                for finding in self._found(name, ground, plan):
                    findings.append(finding)
                    self.say(f"{finding.title} against {finding.baseline or 'its target'}: {report.verdict(finding)}")
        told = {"seconds": round(time.monotonic() - started), **noise.told()}
        if self.as_json:
            self.print_json({"machine": machine, "noise": told, "lines": [finding.as_dict() for finding in findings]})
        for line in ("", *report.lines(findings), "", _words(machine), _words(told)):
            self.say(line)
        failed = [finding for finding in findings if finding.fails]
        self.say(f"{len(failed)} of {len(findings)} lines missed their target or broke." if failed else "Every target that was measured was met.")
        return FAILED if failed else DONE

    def _found(self, name: str, ground: Ground, plan: Plan):
        """The findings of a group; what breaks it is a finding too, and the other groups go on."""
        try:
            yield from lines.GROUPS[name](ground, plan)
        except (PipelineError, psycopg2.Error, pymysql.Error, OSError) as error:
            yield Finding(name, name, "", 0, BROKEN, words=str(error))


def _words(told: dict) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())
