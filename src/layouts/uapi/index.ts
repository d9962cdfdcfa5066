/** The kernel's interface to user space, as those see it who make its calls and those who serve them. */
export { type Field, type Structure, StructureValue, structure } from "./c-struct.ts";
export { FEATURE, REQUESTS } from "./vfio-iommufd.ts";
export * from "./vfio-migration.ts";
