"""The directory of a run: files, tensors, logs, checkpoints."""

from __future__ import annotations

from offline_vi.runs.checkpoint import (
    Checkpoint as Checkpoint,
    Found as Found,
    load_checkpoint as load_checkpoint,
    load_verified as load_verified,
    manifest_bytes as manifest_bytes,
    newest as newest,
    parse_manifest as parse_manifest,
    parse_state as parse_state,
    published as published,
)
from offline_vi.runs.directory import Listener as Listener, RunDirectory as RunDirectory
from offline_vi.runs.files import (
    finite as finite,
    json_bytes as json_bytes,
    parse_json as parse_json,
    read_file as read_file,
    read_json as read_json,
    remove as remove,
    replace_file as replace_file,
    sync_folder as sync_folder,
    temporary_name as temporary_name,
    write_json as write_json,
    write_new as write_new,
    writing as writing,
)
from offline_vi.runs.logs import CsvLog as CsvLog, csv_bytes as csv_bytes, number as number
from offline_vi.runs.tensors import (
    load_tensors as load_tensors,
    parse_tensors as parse_tensors,
    save_tensors as save_tensors,
    tensor_bytes as tensor_bytes,
)
