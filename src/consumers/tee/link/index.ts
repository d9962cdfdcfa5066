/** The host's half: security managers, the devices they secure, and what is shown of them. */
export { LinkCore, type LinkCoreOptions, REQUEST_SCOPE, type SecurityManager } from "./link-core.ts";
export { LinkDriver, type LinkDriverOptions } from "./link-driver.ts";
export { type LinkFile, LinkFiles } from "./link-files.ts";
