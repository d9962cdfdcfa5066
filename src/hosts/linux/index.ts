/** A Linux machine as a host: real devices, through iommufd or VFIO. */
export { type Binding, bindableFunction, bindCommands, bindToVfio, unbindFromVfio } from "./binding.ts";
export { MonotonicClock } from "./clock.ts";
export { LinuxDevice } from "./device.ts";
export { type KernelCalls, LinuxDomain, type LinuxDomainOptions } from "./domain.ts";
export {
  LINUX_CAPABILITIES,
  LinuxHost,
  type LinuxHostOptions,
  type LinuxOpenDevice,
  type LinuxOpenOptions,
} from "./host.ts";
export type { AddressRange, BackEnd, IoAddressSpace } from "./ioas.ts";
export { systemCalls } from "./koffi-syscalls.ts";
export { type AllocateOptions, LinuxBuffer, LinuxMemory } from "./memory.ts";
export {
  type Problem,
  type ReservedRegion,
  type Survey,
  type SurveyedBackEnd,
  type SurveyedDevice,
  type SurveyedUnit,
  survey,
} from "./survey.ts";
export type { Fd, HugePage, MapOptions, Purpose, Syscalls } from "./syscalls.ts";
export { fullName, groupObstacles, IOMMU_GROUPS, PCI_DEVICES, type PciFunction, Sysfs } from "./sysfs.ts";
export { usesOf } from "./uses.ts";
