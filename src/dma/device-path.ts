/** How one device reaches memory: what every call that maps needs to know, as one value. */
import type { DmaDevice } from "./device.ts";
import type { Granules } from "./path/granules.ts";
import type { Path } from "./path/path.ts";
import type { DeviceWatch } from "./watch.ts";

/** A device, its address space, and the path that its mappings take. */
export interface DevicePath {
  readonly device: DmaDevice;
  /** Its address space; undefined if no IOMMU translates for it. */
  readonly granules: Granules | undefined;
  readonly path: Path;
  /** Looks over its calls; undefined: nobody does. */
  readonly watch: DeviceWatch | undefined;
}
