/** Recorded events: the catalogue, and the files they come from. */

export type { CallChain } from "./call-chain.ts";
export * from "./calls.ts";
export * from "./catalogue.ts";
export { type Codecs, DEFAULT_CODECS, unzstdStream, ZSTD_MAGIC } from "./codecs.ts";
export * from "./errors.ts";
export * from "./events.ts";
export {
  bytesInput,
  type FileInput,
  fileInput,
  inputChunks,
  type ReadableAt,
  type StreamInput,
  type TraceInput,
} from "./input.ts";
export * from "./kernel-log/index.ts";
export { type OpenOptions, openTrace } from "./open.ts";
export { isPerfData } from "./perf/perf-file.ts";
export { pagePadding, type RecordedPages, recordedHead } from "./recorded-pages.ts";
export { type RecorderOptions, TraceRecorder } from "./recorder.ts";
export type { Remark, RemarkCode } from "./remarks.ts";
export type { Timing } from "./timing.ts";
