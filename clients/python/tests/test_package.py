"""Properties of the whole package."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_tools import protoc

import conversation_memory as cm
from conversation_memory._method import Method
from conversation_memory._proto.v1 import methods
from conversation_memory._read_your_writes import ObservedSeqs
from conversation_memory._retries import IDEMPOTENT_METHODS

from .sidecar import ROOT, TIMEOUT

PACKAGE = Path(__file__).parents[1]


def test_version_equals_the_version_of_the_service() -> None:
    found = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    assert found is not None
    assert cm.__version__ == found[1]


def test_client_uses_every_method_of_the_contract() -> None:
    known = {it.path for it in vars(methods).values() if isinstance(it, Method)}
    assert len(known) == 41
    source = Path(inspect.getfile(cm)).parent
    names = {name for name, it in vars(methods).items() if isinstance(it, Method)}
    text = "".join(path.read_text() for path in (source / "_async").glob("*.py"))
    assert {name for name in names if f"methods.{name}" not in text} == set()
    assert {method.path for method in IDEMPOTENT_METHODS} < known


def test_package_loads_together_with_other_stubs_of_the_contract(tmp_path: Path) -> None:
    from importlib.resources import files

    known = str(files("grpc_tools") / "_proto")
    google = ROOT / "proto" / "google" / "api"
    contract = sorted((ROOT / "proto" / "conversation_memory" / "v1").glob("*.proto"))
    descriptors = tmp_path / "contract.pb"
    assert (
        protoc.main(
            [
                "protoc",
                f"-I{ROOT / 'proto'}",
                f"-I{known}",
                "--include_imports",
                f"--descriptor_set_out={descriptors}",
                *map(str, [*contract, google / "http.proto"]),
            ]
        )
        == 0
    )
    script = (
        "import sys, pathlib\n"
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "import conversation_memory\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:\n"
        "    if file.name.startswith('google/protobuf/'): continue\n"
        "    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())\n"
    )
    subprocess.run([sys.executable, "-c", script, str(descriptors)], check=True, timeout=TIMEOUT)


def test_errors_can_be_pickled() -> None:
    error = cm.SeqMismatch("ABORTED: no")
    error.code, error.reason, error.details = grpc.StatusCode.ABORTED, "R", {"current_seq": "7"}
    error.request_id = "turn-1"
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is cm.SeqMismatch
    assert (str(back), back.code, back.reason) == ("ABORTED: no", grpc.StatusCode.ABORTED, "R")
    assert (back.current_seq, back.request_id) == (7, "turn-1")


@pytest.mark.parametrize("kind", [cm.NotFound, cm.SessionExpired, cm.OutcomeUnknown])
def test_errors_are_subclasses_of_the_base_error(kind: type[Exception]) -> None:
    assert issubclass(kind, cm.ConversationMemoryError)


def test_observed_seqs_evict_the_least_recently_used() -> None:
    seen = ObservedSeqs(capacity=2)
    seen.record("a", 5)
    seen.record("b", 1)
    seen.record("A", 3)
    seen.record("c", 1)
    assert [seen.last_seq(name) for name in "abc"] == [5, 0, 1]
    seen.forget("a")
    assert seen.last_seq("a") == 0


@pytest.mark.parametrize(
    ("module", "framework", "extra"),
    [
        ("openai_agents", "agents", "openai-agents"),
        ("langchain", "langchain_core", "langchain"),
        ("langgraph", "langgraph", "langgraph"),
        ("google_adk", "google.adk", "google-adk"),
        ("agent_framework", "agent_framework", "agent-framework"),
        ("claude_agent_sdk", "claude_agent_sdk", "claude-agent-sdk"),
    ],
)
def test_missing_framework_is_named_in_the_error(module: str, framework: str, extra: str) -> None:
    (requirement,) = re.findall(
        rf'^{extra} = \["(.+)"\]$', (PACKAGE / "pyproject.toml").read_text(), re.MULTILINE
    )
    # A module that is None in sys.modules cannot be imported.
    script = (
        "import sys\n"
        "import conversation_memory\n"
        f"assert {framework!r} not in sys.modules, 'it is loaded where it is not asked for'\n"
        f"sys.modules[{framework!r}] = None\n"
        "try:\n"
        f"    import conversation_memory.{module}\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, timeout=TIMEOUT, capture_output=True, text=True
    )
    (command,) = re.findall(r"install it with pip install '(.+)'$", done.stdout, re.MULTILINE)
    # The metadata of an installed package sorts the versions.
    assert re.split("[<>,]", command)[0] == re.split("[<>,]", requirement)[0]
    assert sorted(re.findall("[<>]=?[0-9.]+", command)) == sorted(
        re.findall("[<>]=?[0-9.]+", requirement)
    )
