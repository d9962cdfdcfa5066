/** VFIO: devices in the hands of programs. */
export * from "./migration/index.ts";
