from .checkpoint import (
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
from .directory import Listener as Listener, RunDirectory as RunDirectory
from .files import (
    append as append,
    finite as finite,
    json_bytes as json_bytes,
    parse_json as parse_json,
    read_file as read_file,
    read_json as read_json,
    read_text as read_text,
    remove as remove,
    replace_file as replace_file,
    sync_folder as sync_folder,
    temporary_name as temporary_name,
    write_json as write_json,
    write_new as write_new,
    write_text as write_text,
    writing as writing,
)
from .logs import CsvLog as CsvLog, csv_bytes as csv_bytes, number as number
from .ownership import claim as claim, is_ours as is_ours, is_run as is_run
from .tensors import (
    load_tensors as load_tensors,
    parse_tensors as parse_tensors,
    save_tensors as save_tensors,
    tensor_bytes as tensor_bytes,
)
