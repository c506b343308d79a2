"""Creates and parses the headers of LangSmith's SDK.

Usage: langsmith_runs.py headers   prints the headers that the SDK sends with a call
                                   from a root run and from a child run
       langsmith_runs.py parse     reads a JSON list of dotted orders, and prints the
                                   ids of the runs in each
"""

import json
import sys

from langsmith.run_trees import RunTree, _parse_dotted_order


def headers():
    root = RunTree(
        name="agent",
        run_type="chain",
        project_name="Vacation desk, 2nd",
        extra={"metadata": {"langsmith-project": "not this, one"}},
        tags=["a,b"],
    )
    child = root.create_child(name="remember", run_type="tool")
    runs = {"root": root, "child": child}
    return {
        name: {
            "id": str(run.id),
            "trace_id": str(run.trace_id),
            "project": run.session_name,
            "headers": run.to_headers(),
        }
        for name, run in runs.items()
    }


def parse():
    return [[str(id) for _, id in _parse_dotted_order(order)] for order in json.load(sys.stdin)]


print(json.dumps({"headers": headers, "parse": parse}[sys.argv[1]]()))
