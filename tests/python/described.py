"""Compares REST calls with the OpenAPI document.

Reads {"document": the OpenAPI document, "calls": requests and responses} from standard input and
prints {"wrong": what the document does not allow in a request or response, "unseen": members of
the document that no call contains}.
"""

import json
import re
import sys

import jsonschema_rs

given = json.load(sys.stdin)
document, calls = given["document"], given["calls"]
schemas = document["components"]["schemas"]
operations = {o["operationId"]: o for path in document["paths"].values() for o in path.values()}
wrong, seen = [], set()


def is_int64(text):
    # Each number has one representation only.
    return re.fullmatch("0|-?[1-9][0-9]*", text) is not None and -(2**63) <= int(text) < 2**63


def errors(schema, value):
    whole = {"components": document["components"], **schema}
    validator = jsonschema_rs.Draft202012Validator(
        whole, validate_formats=True, formats={"int64": is_int64}
    )
    return [f"{'.'.join(map(str, e.instance_path))}: {e.message}" for e in validator.iter_errors(value)]


def named(schema, name):
    """Resolves a reference to a schema, and returns the schema with its name."""
    reference = schema.get("$ref")
    if reference:
        name = reference.rsplit("/", 1)[1]
        schema = schemas[name]
    return schema, name


def record_members(schema, value, name):
    """Records the members that a value has."""
    schema, name = named(schema, name)
    if isinstance(value, list):
        for item in value:
            record_members(schema["items"], item, name)
    elif isinstance(value, dict):
        for member in schema.get("properties", {}).keys() & value.keys():
            seen.add(f"{name}.{member}")
            record_members(schema["properties"][member], value[member], f"{name}.{member}")


def collect_members(schema, name, found):
    """Records the members that a value may have."""
    schema, name = named(schema, name)
    for member, below in schema.get("properties", {}).items():
        if f"{name}.{member}" not in found:
            found.add(f"{name}.{member}")
            collect_members(below, f"{name}.{member}", found)
    if "items" in schema:
        collect_members(schema["items"], name, found)
    return found


for call in calls:
    name = call["operation"]
    operation = operations[name]
    is_ok = call["status"] == 200
    response = operation["responses"]["200" if is_ok else "default"]
    kind = call["content_type"].split(";")[0]
    label = f"{name} {call['status']} {kind}"
    if "*/*" in response["content"]:
        kind = "*/*"
    if kind not in response["content"]:
        wrong.append(f"{label}: is not described")
        continue
    schema = response["content"][kind].get("schema", {})
    # A response that is a file has no schema.
    if schema:
        wrong += [f"{label}: {error}" for error in errors(schema, call["answer"])]
        record_members(schema, call["answer"], name)
    if not is_ok:
        continue
    seen.add(name)
    seen.update(f"{name}({parameter})" for parameter in call["parameters"])
    seen.add(f"{name} {kind}")
    if call["body"] is not None:
        schema = operation["requestBody"]["content"]["application/json"].get("schema", {})
        wrong += [f"{name}'s request: {error}" for error in errors(schema, call["body"])]
        record_members(schema, call["body"], f"{name}'s request")

expected = set()
for name, operation in operations.items():
    expected.add(name)
    expected.update(f"{name}({parameter['name']})" for parameter in operation.get("parameters", []))
    for kind, content in operation["responses"]["200"]["content"].items():
        expected.add(f"{name} {kind}")
        collect_members(content.get("schema", {}), name, expected)
    collect_members(schemas["Error"], "Error", expected)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        collect_members(content.get("schema", {}), f"{name}'s request", expected)
print(json.dumps({"wrong": wrong, "unseen": sorted(expected - seen)}))
