/** A GPU of the simulated machine, and the interconnect that joins several. */
export { type GpuCounts, type GpuOptions, SimulatedGpu } from "./gpu.ts";
export { GpuInterconnect } from "./interconnect.ts";
