/** Type 1 containers: mappings that groups of devices share. */
export { type ContainerGroup, ENTRY_LIMIT, Type1Container, type Type1Options } from "./container.ts";
export { ContainerFile } from "./container-file.ts";
export { Type1Mapping } from "./mapping.ts";
