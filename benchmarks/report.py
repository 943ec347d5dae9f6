"""Turn rounds into medians, a table and a JSON file."""
from __future__ import annotations

import json
import os
import platform
import statistics
import sys

PACKAGES = (
    "simplepubsub", "azure-messaging-webpubsubclient", "websocket-client", "websockets", "aiohttp", "picows", "uvloop",
    "orjson", "python-socketio", "python-engineio")


def machine() -> dict:
    """Return what the numbers depend on: interpreter, system, processor, packages."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as handle:
            model = next((line.split(":", 1)[1].strip() for line in handle if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "python": "%s %s" % (platform.python_implementation(), platform.python_version()),
        "system": "%s %s" % (platform.system(), platform.release()),
        "processor": model, "cores": os.cpu_count(),
        "load_before": load(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def load() -> str:
    """Return the load average of the last minute, which includes what others run on this machine."""
    return "%.1f" % os.getloadavg()[0] if hasattr(os, "getloadavg") else "?"


def version(name: str) -> str:
    """Return the installed version of a distribution, or "-"."""
    if sys.version_info < (3, 8):
        return "?"
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


def summarise(measure, rounds: dict, notes: dict) -> dict:
    """Return the medians, spreads and verdicts of one measure."""
    contenders = {}
    for name in measure.contenders:
        done = [result for result in rounds[name] if result]
        row = {"rounds": rounds[name], "note": notes.get(name, "")}
        for key, _, _ in measure.columns:
            values = [result[key] for result in done if key in result]
            if values:
                row[key] = statistics.median(values)
                row[key + "_range"] = [min(values), max(values)]
        contenders[name] = row
    return {
        "title": measure.title, "contenders": contenders, "round_count": max(len(items) for items in rounds.values()),
        "targets": [target.judge(rounds) for target in measure.targets],
    }


def extra(results: list) -> str:
    """Return what only the official client's results carry: its best number of threads and the sends it slept over."""
    parts = []
    threads = [result["threads"] for result in results if result and "rates" in result]
    if threads:
        tried = "/".join(next(result for result in results if result and "rates" in result)["rates"])
        parts.append("best of %s threads: %s" % (tried, "/".join(str(number) for number in sorted(set(threads)))))
    slept = sum(result.get("slept", 0) for result in results if result)
    if slept:
        parts.append("%d sends slept through their ack" % slept)
    return "; ".join(parts)


def header(facts: dict) -> str:
    """Return the lines above the table."""
    packages = ", ".join("%s %s" % item for item in facts["packages"].items())
    return "%s, %s, %s x %s, load before %s\n%s" % (
        facts["python"], facts["system"], facts["cores"], facts["processor"],
        facts["load_before"], packages)


def table(measure, summary: dict) -> str:
    """Return one measure as text: a row for each contender, then its targets."""
    first_key, _, first_format = measure.columns[0]
    lines = ["", "%s: %s (median of %d)" % (measure.name, measure.title, summary["round_count"])]
    cells = [[""] + [heading for _, heading, _ in measure.columns] + ["min..max", ""]]
    for name in measure.contenders:
        row = summary["contenders"][name]
        if first_key not in row:
            cells.append([name] + ["-"] * len(measure.columns) + ["", row["note"] or "no result"])
            continue
        values = [form(row[key]) if key in row else "-" for key, _, form in measure.columns]
        low, high = row[first_key + "_range"]
        cells.append([name] + values + ["%s..%s" % (first_format(low), first_format(high)), row["note"]])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    for line in cells:
        numbers = [text.rjust(width) for text, width in zip(line[1:-1], widths[1:-1])]
        lines.append("  " + "  ".join([line[0].ljust(widths[0])] + numbers + [line[-1]]).rstrip())
    lines += ["  " + verdict(target) for target in summary["targets"]]
    return "\n".join(lines)


def verdict(target: dict) -> str:
    """Return a target with its value and PASS, MISS or `not measured`."""
    kind = "info" if target["limit"] is None else "target"
    if target["value"] is None:
        return "%s: %s -> not measured" % (kind, target["text"])
    found = "%s: %s -> %.2f %s" % (kind, target["text"], target["value"], target["unit"])
    return found if target["pass"] is None else found + ("  PASS" if target["pass"] else "  MISS")


def write_json(path: str, facts: dict, summaries: dict) -> None:
    """Write everything, single rounds included."""
    with open(path, "w", encoding="utf-8") as handle:
        json.dump({"machine": facts, "measures": summaries}, handle, indent=1, sort_keys=True)
        handle.write("\n")
