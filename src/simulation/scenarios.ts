/** The scenarios there are. */
import {
  type DmabufConfig,
  type DmabufStep,
  dmabufInWords,
  dmabufPlan,
  dmabufStepInWords,
  runDmabuf,
} from "./dmabuf/index.ts";
import { type GpuConfig, type GpuStep, gpuInWords, gpuPlan, gpuStepInWords, runGpu } from "./gpu/index.ts";
import {
  type MappingConfig,
  machineInWords,
  mappingPlan,
  runMapping,
  type Step,
  stepInWords,
} from "./mapping/index.ts";
import { type NvmeConfig, type NvmeStep, nvmeInWords, nvmePlan, nvmeStepInWords, runNvme } from "./nvme/index.ts";
import { type RdmaConfig, type RdmaStep, rdmaInWords, rdmaPlan, rdmaStepInWords, runRdma } from "./rdma/index.ts";
import type { Scenario } from "./scenario.ts";
import { runTee, type TeeConfig, type TeeStep, teeInWords, teePlan, teeStepInWords } from "./tee/index.ts";
import { runVfio, type VfioConfig, type VfioStep, vfioInWords, vfioPlan, vfioStepInWords } from "./vfio/index.ts";

/** Mapping on random machines: every byte compared with a shadow, every access after teardown caught. */
export const mapping: Scenario<MappingConfig, Step> = {
  name: "mapping",
  summary: "devices map memory in every way there is, on every kind of machine",
  plan: (seed) => mappingPlan(seed),
  run: (plan, options) => Promise.resolve(runMapping(plan, options)),
  machineInWords,
  stepInWords,
};

/** Disks under random loads, pulled out and put back, with faults. */
export const nvme: Scenario<NvmeConfig, NvmeStep> = {
  name: "nvme",
  summary: "NVMe disks under load, with resets, removals, lost and late completions, and copies from disk to disk",
  plan: (seed) => nvmePlan(seed),
  run: (plan, options) => runNvme(plan, options),
  machineInWords: nvmeInWords,
  stepInWords: nvmeStepInWords,
};

/** Devices that enter the trust of confidential guests, under attack. */
export const tee: Scenario<TeeConfig, TeeStep> = {
  name: "tee",
  summary: "devices enter and leave the trust of confidential guests, while hosts, boards and rogue functions attack",
  plan: (seed) => teePlan(seed),
  run: (plan, options) => runTee(plan, options),
  machineInWords: teeInWords,
  stepInWords: teeStepInWords,
};

/** One buffer that devices share, while it moves, goes and comes. */
export const dmabuf: Scenario<DmabufConfig, DmabufStep> = {
  name: "dmabuf",
  summary: "devices share a buffer that moves between RAM and its owner, is taken away and comes back",
  plan: (seed) => dmabufPlan(seed),
  run: (plan, options) => Promise.resolve(runDmabuf(plan, options)),
  machineInWords: dmabufInWords,
  stepInWords: dmabufStepInWords,
};

/** Memory of one machine reached by another, while it moves. */
export const rdma: Scenario<RdmaConfig, RdmaStep> = {
  name: "rdma",
  summary:
    "two machines with RDMA adapters on a bad wire, while a process forks, drops and moves the memory that is reached",
  plan: (seed) => rdmaPlan(seed),
  run: (plan, options) => Promise.resolve(runRdma(plan, options)),
  machineInWords: rdmaInWords,
  stepInWords: rdmaStepInWords,
};

/** GPUs in the memory of a process. */
export const gpu: Scenario<GpuConfig, GpuStep> = {
  name: "gpu",
  summary: "GPUs share the memory of a process, while eight threads use, move, unmap and fork it",
  plan: (seed) => gpuPlan(seed),
  run: (plan, options) => Promise.resolve(runGpu(plan, options)),
  machineInWords: gpuInWords,
  stepInWords: gpuStepInWords,
};

/** Guests that devices are given to. */
export const vfio: Scenario<VfioConfig, VfioStep> = {
  name: "vfio",
  summary:
    "guests that devices are given to by iommufd and VFIO: memory plugged and unplugged, devices that come and go, processes that fork and hand over, moves to other hosts",
  plan: (seed) => vfioPlan(seed),
  run: (plan, options) => runVfio(plan, options),
  machineInWords: vfioInWords,
  stepInWords: vfioStepInWords,
};

/** By name. */
export const SCENARIOS: Readonly<Record<string, Scenario<unknown, unknown>>> = {
  mapping: mapping as Scenario<unknown, unknown>,
  nvme: nvme as Scenario<unknown, unknown>,
  rdma: rdma as Scenario<unknown, unknown>,
  gpu: gpu as Scenario<unknown, unknown>,
  tee: tee as Scenario<unknown, unknown>,
  dmabuf: dmabuf as Scenario<unknown, unknown>,
  vfio: vfio as Scenario<unknown, unknown>,
};
