/** Scenario "nvme": disks under load, that lose, delay and repeat completions, are reset, and pulled out. */
export { type NvmeConfig, type NvmeStep, nvmePlan } from "./plan.ts";
export { runNvme } from "./run.ts";
export { nvmeInWords, nvmeStepInWords } from "./story.ts";
