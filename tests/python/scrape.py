"""Reads metrics with the parser of Prometheus's client library.

Usage: scrape.py URL. Prints the samples, each with its name, labels and value.
"""

import json
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

with urllib.request.urlopen(sys.argv[1], timeout=20) as answer:
    content_type = answer.headers["content-type"]
    text = answer.read().decode()
assert content_type.startswith("text/plain"), content_type
samples = []
for family in text_string_to_metric_families(text):
    assert family.documentation, f"{family.name} has no HELP"
    assert family.type != "unknown", f"{family.name} has no TYPE"
    samples += [{"name": s.name, "labels": s.labels, "value": s.value} for s in family.samples]
print(json.dumps(samples))
