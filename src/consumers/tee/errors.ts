/** What is refused around trusted devices. One function per error. */
import { DmaError, given, hex } from "../../base/index.ts";

// The link core.

/** A manager with both kinds of operations, or none. */
export const badManager = (both: boolean): DmaError =>
  new DmaError(
    "ERR_DMA_TSM_MANAGER",
    "EINVAL",
    `a security manager with ${both ? "both link and device-security operations" : "neither link nor device-security operations"}: ` +
      "give exactly one",
    { both },
  );

/** A name that is none. */
export const badManagerName = (name: string): DmaError =>
  new DmaError("ERR_DMA_TSM_NAME", "EINVAL", `${given(name)} names no security manager: give tsm and its number`, {
    name,
  });

/** A second connection. */
export const alreadyConnected = (fn: string, manager: string): DmaError =>
  new DmaError("ERR_DMA_TSM_CONNECTED", "EBUSY", `${fn} is connected by ${manager}: disconnect it first`, {
    function: fn,
    manager,
  });

/** Nobody has that name, or it does not secure links. */
export const unknownManager = (name: string): DmaError =>
  new DmaError("ERR_DMA_TSM_UNKNOWN", "ENXIO", `no security manager ${given(name)} that secures links`, { name });

/** The manager does not take this device. */
export const refusedByManager = (fn: string, manager: string): DmaError =>
  new DmaError("ERR_DMA_TSM_REFUSED", "ENXIO", `${manager} does not take ${fn}`, { function: fn, manager });

/** Something that needs a connection. */
export const notConnected = (fn: string, errno: "EINVAL" | "ENXIO"): DmaError =>
  new DmaError("ERR_DMA_TSM_NOT_CONNECTED", errno, `${fn} is not secured: connect its device first`, { function: fn });

/** Disconnect by another name. */
export const notThisManager = (fn: string, name: string, manager: string): DmaError =>
  new DmaError("ERR_DMA_TSM_NAME", "EINVAL", `${fn} is connected by ${manager}, not by ${given(name)}`, {
    function: fn,
    name,
    manager,
  });

/** Bound to nobody. */
export const noGuest = (fn: string): DmaError =>
  new DmaError("ERR_DMA_TSM_NO_GUEST", "EINVAL", `${fn} is bound to a guest, and none was given`, { function: fn });

/** Bound to somebody else. */
export const alreadyBound = (fn: string): DmaError =>
  new DmaError("ERR_DMA_TSM_BOUND", "EBUSY", `${fn} is bound to another guest: unbind it there first`, {
    function: fn,
    rule: 9,
  });

/** A guest's request about something that it does not have. */
export const notBound = (fn: string): DmaError =>
  new DmaError("ERR_DMA_TSM_NOT_BOUND", "ENXIO", `${fn} is bound to no guest`, { function: fn });

/** A guest's request that is not about the interface. */
export const forbiddenScope = (fn: string, scope: number): DmaError =>
  new DmaError(
    "ERR_DMA_TSM_SCOPE",
    "EINVAL",
    `a guest's request of scope ${given(scope)} about ${fn}: only 0 (information) and 1 (state changes) are passed on`,
    { function: fn, scope, rule: 10 },
  );

/** No way to talk to the device. */
export const noMailbox = (fn: string, errno: "ENODEV" | "ENXIO"): DmaError =>
  new DmaError("ERR_DMA_TSM_MAILBOX", errno, `${fn} has no mailbox through which its device could be asked`, {
    function: fn,
  });

/** A file that is not there. */
export const noSuchFile = (fn: string, file: string): DmaError =>
  new DmaError("ERR_DMA_TSM_FILE", "ENOENT", `${fn} has no file ${file}`, { function: fn, file });

// Streams.

/** A port without selective streams. */
export const noIde = (port: string): DmaError =>
  new DmaError("ERR_DMA_IDE_UNSUPPORTED", "EOPNOTSUPP", `${port} has no selective IDE streams`, { port });

/** A device that no root port leads to. */
export const noRootPort = (fn: string): DmaError =>
  new DmaError("ERR_DMA_IDE_UNSUPPORTED", "EOPNOTSUPP", `${fn} is below no root port: a stream needs one`, {
    function: fn,
  });

/** A pool is empty. */
export const noStreamLeft = (where: string, streams: number): DmaError =>
  new DmaError("ERR_DMA_IDE_FULL", "ENOSPC", `all ${streams} streams of ${where} are in use: release one`, {
    where,
    streams,
  });

/** A stream id that is none. */
export const badStreamId = (id: number): DmaError =>
  new DmaError("ERR_DMA_IDE_ID", "ENXIO", `${given(id)} is no stream id: give one from 0 to 254`, { id });

/** A stream id that another stream has. */
export const streamIdInUse = (id: number): DmaError =>
  new DmaError(
    "ERR_DMA_IDE_ID",
    "EBUSY",
    `stream id ${id} is ${id === 255 ? "that of unused streams" : "in use below this host bridge"}: give another`,
    { id, rule: 14 },
  );

/** A port does not call the stream secure. */
export const streamNotSecure = (stream: string, port: string, id: number): DmaError =>
  new DmaError("ERR_DMA_IDE_INSECURE", "ENXIO", `${port} does not call ${stream} (id ${id}) secure: has it its keys?`, {
    stream,
    port,
    id,
  });

/** A step out of order. */
export const streamOrder = (stream: string, what: string, step: string, needed: string): DmaError =>
  new DmaError("ERR_DMA_IDE_ORDER", "EINVAL", `cannot ${what} ${stream}: it is ${step}, and must be ${needed}`, {
    stream,
    step,
  });

// The guest.

/** A step that does not fit how far the device is. */
export const wrongTrust = (device: string, what: string, trust: string): DmaError =>
  new DmaError("ERR_DMA_TEE_TRUST", "EBUSY", `cannot ${what} ${device}: its trust is ${JSON.stringify(trust)}`, {
    device,
    what,
    trust,
  });

/** Trust that is gone. */
export const trustLost = (device: string, why: string): DmaError =>
  new DmaError(
    "ERR_DMA_TEE_LOST",
    "EIO",
    `trust in ${device} is lost (${why}): give back what is mapped, stop it, start it`,
    {
      device,
      why,
    },
  );

/** A change of trust while something is mapped. */
export const liveMappings = (device: string, what: string, words: string, live: object): DmaError =>
  new DmaError("ERR_DMA_TEE_LIVE", "EBUSY", `cannot ${what} ${device} while it can reach memory: ${words}`, {
    device,
    live,
    rule: 2,
  });

/** A device that the host has not bound to this guest. */
export const noInterface = (device: string): DmaError =>
  new DmaError(
    "ERR_DMA_TEE_UNBOUND",
    "ENXIO",
    `${device} is not bound to this guest: its host must connect and bind it`,
    {
      device,
    },
  );

/** A device that the policy does not let in. */
export const policyRefuses = (
  device: string,
  reasons: readonly { readonly code: string; readonly what: string }[],
): DmaError =>
  new DmaError(
    "ERR_DMA_TEE_POLICY",
    "EACCES",
    `${device} is not let in: ${reasons.map(({ what }) => what).join("; ")}`,
    {
      device,
      reasons,
      ...(reasons.some(({ code }) => code === "memory") && { rule: 11 }),
    },
  );

/** A door that holds no more. */
export const contractOver = (device: string, why: string): DmaError =>
  new DmaError(
    "ERR_DMA_TEE_CONTRACT",
    "EPERM",
    `nothing more is mapped for ${device} through this door: ${why}; open another`,
    {
      device,
      why,
      rule: 5,
    },
  );

/** Memory that is not what the mapping says. */
export const sharingDiffers = (device: string, phys: number, page: string): DmaError =>
  new DmaError(
    "ERR_DMA_SHARING",
    "EINVAL",
    `${hex(phys)} is ${page} memory, and the mapping for ${device} says that it is ${page === "private" ? "shared" : "private"}`,
    { device, phys, page, rule: 7 },
  );

/** A piece of which some is private and some is shared. */
export const mixedPiece = (device: string, phys: number): DmaError =>
  new DmaError(
    "ERR_DMA_SHARING",
    "EINVAL",
    `${hex(phys)} is not like the memory before it, one private and one shared: map them for ${device} in pieces`,
    { device, phys, rule: 7 },
  );

/** Memory of a device that this device has nothing to do with. */
export const privateDeviceMemory = (device: string, phys: number, page: string): DmaError =>
  new DmaError(
    "ERR_DMA_TEE_PEER",
    "EPERM",
    `${hex(phys)} is ${page} memory of a device, on the other side of the trust from ${device}`,
    { device, phys, page, rule: 12 },
  );

/** Private memory of a peer that is not bound. */
export const peerNotBound = (device: string, phys: number): DmaError =>
  new DmaError(
    "ERR_DMA_TEE_PEER",
    "EPERM",
    `${hex(phys)} is private memory of a device that ${device} is not bound to, or that does not run`,
    { device, phys, rule: 12 },
  );
