/** Recorded events: the catalogue, and the files they come from. */
export * from "./catalogue.ts";
export { type Codecs, DEFAULT_CODECS } from "./codecs.ts";
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
export { pagePadding, type RecordedPages, recordedHead } from "./recorded-pages.ts";
export { type RecorderOptions, TraceRecorder } from "./recorder.ts";
