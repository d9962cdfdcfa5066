/** The kernel's own interface to user space: VFIO and iommufd. */
export * from "./c-struct.ts";
export * from "./iommufd.ts";
export * from "./vfio-iommufd.ts";
export * from "./vfio-migration.ts";
