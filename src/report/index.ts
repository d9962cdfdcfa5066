/**
 * Answers as values for people: what was found, counted and drawn, as text, JSON, SARIF, HTML, Perfetto and tables.
 *
 * Idea: a report is a function of what analysis, replay and simulation found; where it goes (a terminal, a file, a page) is the
 * caller's. Promises: nothing of Node's modules, so that a page in a browser says the same as the program.
 * @module
 */
export { checkJson, findingJson } from "./check/check-json.ts";
export { type CheckOutcome, checkedOf, checkSetText, type UnreadFile, unreadOf } from "./check/check-set.ts";
export { type CheckedTrace, checkText, findingText, headline } from "./check/check-text.ts";
export { secondsOf } from "./check/clock.ts";
export { dumpJson, dumpText } from "./check/dump-report.ts";
export { type CheckedFile, checkSarif } from "./check/sarif.ts";
export { compareJson } from "./compare/compare-json.ts";
export {
  type ComparedAs,
  type CompareReport,
  type KernelCheck,
  kernelCheck,
  WHAT_IF,
  type WhatIf,
} from "./compare/compare-report.ts";
export { compareText } from "./compare/compare-text.ts";
export {
  diffTraces,
  FAIL_ON_NAMES,
  type FailOn,
  type FindingChange,
  type MeasuredChange,
  type Regression,
  type TraceDiff,
} from "./diff/diff.ts";
export { diffJson } from "./diff/diff-json.ts";
export { diffText } from "./diff/diff-text.ts";
export { MEASURES, type Measure } from "./diff/measures.ts";
export { readSide, type TraceSide } from "./diff/trace-side.ts";
export { deviceFigure } from "./html/device-figure.ts";
export { reportPage } from "./html/html-page.ts";
export { type Occupancy, type OccupancyOptions, occupancyOf } from "./html/occupancy.ts";
export type { Deflate } from "./html/png.ts";
export { writePageTablesJson } from "./page-tables/page-tables-json.ts";
export { pageTablesText, type UnitFacts } from "./page-tables/page-tables-text.ts";
export { type PerfettoResult, writePerfetto } from "./perfetto/perfetto-trace.ts";
export { type Mappings, type Recording, readRecording } from "./recording.ts";
export {
  type BrokenPromise,
  type SimulationResult,
  simulationJson,
  simulationText,
} from "./simulation/simulation-report.ts";
export { statsJson } from "./stats/stats-json.ts";
export { statsText } from "./stats/stats-text.ts";
export * from "./tables/index.ts";
export { type ParquetResult, writeParquet } from "./tables/parquet.ts";
export { EventRows, findingRows, mappingRows, requestRows } from "./tables/rows.ts";
export * from "./text/index.ts";
export { lostWords, NOTHING_RECORDED } from "./wording.ts";
