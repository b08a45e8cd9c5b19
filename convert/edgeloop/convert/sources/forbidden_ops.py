"""TensorFlow operations that a model has no business with: they touch files, other machines, or run code.

Chosen from the op list of TensorFlow 2.21 (`TF_GetAllOpList`, 1,910 ops) by searching it: ops that are stateful, whose
names speak of files, readers, datasets, Python, hosts or RPC, or with an argument named file, path, prefix or address.
It is a list of what is known to harm, not of what is known to be harmless.
"""

from __future__ import annotations

from collections.abc import Mapping

_GROUPS = {
    "reads files": (
        "ReadFile MatchingFiles LMDBReader FixedLengthRecordReader FixedLengthRecordReaderV2 TextLineReader "
        "TextLineReaderV2 TFRecordReader TFRecordReaderV2 WholeFileReader WholeFileReaderV2 RecordInput "
        "InitializeTableFromTextFile InitializeTableFromTextFileV2 LoadAndRemapMatrix GenerateVocabRemapping Skipgram "
        "TextLineDataset TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset FixedLengthRecordDatasetV2 "
        "CSVDataset CSVDatasetV2 ExperimentalCSVDataset LMDBDataset ExperimentalLMDBDataset SqlDataset "
        "ExperimentalSqlDataset MatchingFilesDataset ExperimentalMatchingFilesDataset LoadDataset "
        "ListSnapshotChunksDataset SnapshotChunkDataset SnapshotDatasetReader SnapshotNestedDatasetReader "
        "ImportEvent DTensorRestoreV2"
    ),
    "writes files": (
        "WriteFile DumpTensor CacheDataset CacheDatasetV2 SnapshotDataset SnapshotDatasetV2 SaveDataset SaveDatasetV2 "
        "DistributedSave DatasetToTFRecord ExperimentalDatasetToTFRecord CreateSummaryFileWriter CreateSummaryDbWriter "
        "CalibrationStatisticsSaver DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary "
        "FileSystemSetConfiguration"
    ),
    "runs code that the graph does not show": (
        "PyFunc PyFuncStateless EagerPyFunc DatasetFromGraph XlaCustomCall XlaCustomCallV2 XlaHostCompute "
        "_XlaHostComputeMlir TPUCompile _TPUCompileMlir TRTEngineOp"
    ),
    "reaches other machines": (
        "RpcServer RpcServerStart RpcServerRegister RpcClient RpcCall RemoteCall DataServiceDataset "
        "DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 RegisterDataset RegisterDatasetV2 "
        "BigQueryReader _HostSend _HostRecv _Send _Recv Send Recv"
    ),
}
FORBIDDEN_OPS: Mapping[str, str] = {op: what for what, names in _GROUPS.items() for op in names.split()}

# {op: (attribute, what it does then, how a harmless value begins)}; an empty value is harmless
FORBIDDEN_WHEN: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "PrintV2": ("output_stream", "writes files", ("stderr", "stdout", "log(")),
    "DecodeProtoV2": ("descriptor_source", "reads files", ("local://", "bytes://")),
    "EncodeProto": ("descriptor_source", "reads files", ("local://", "bytes://")),
    "FixedUnigramCandidateSampler": ("vocab_file", "reads files", ()),
}

# The saver's own: legal where nothing but the saver named in the MetaGraphDef reaches them.
SAVING = frozenset({"Save", "SaveSlices", "SaveV2", "MergeV2Checkpoints"})
RESTORING = frozenset({"Restore", "RestoreSlice", "RestoreV2"})


def forbidden(op: str, attributes: Mapping[str, str]) -> str | None:
    """What an operation does that it may not, or None; `attributes` are its text attributes."""
    if op in FORBIDDEN_WHEN:
        name, what, harmless = FORBIDDEN_WHEN[op]
        value = attributes.get(name, "")
        return what if value and not value.startswith(harmless) else None
    return FORBIDDEN_OPS.get(op)
