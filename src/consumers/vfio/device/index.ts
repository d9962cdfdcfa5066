/** VFIO devices as programs hold them: by their group, or by their own file. */
export { DeviceFile, type GroupHold } from "./device-file.ts";
export { GroupFile } from "./group-file.ts";
export { type DeviceInterrupts, type DeviceRegion, VfioDevice, type VfioDeviceModel, VfioGroup } from "./model.ts";
