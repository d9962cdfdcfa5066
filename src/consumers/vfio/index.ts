/** VFIO: devices in the hands of programs. */
export * from "./device/index.ts";
export * from "./migration/index.ts";
export * from "./type1/index.ts";
