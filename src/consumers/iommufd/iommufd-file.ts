/**
 * /dev/iommu as programs see it: requests by number, structures as bytes, answers as errnos. The second door.
 *
 * Idea: a table names for each request its structure and what to do; the checks of sizes are the same for all. Numbers that are
 * not iommufd's own are those of VFIO containers, for programs of before.
 * Promises: answers, errnos and what is left in the caller's memory equal Linux's; no argument makes it throw.
 * Specified by: include/uapi/linux/iommufd.h; behaviour of Linux 7.2; judged by test/golden/iommufd.
 */
import { DmaError, ERRNO } from "../../base/index.ts";
import { HWPT_FLAGS, IOAS_MAP_FLAGS, IOMMUFD_REQUESTS, type IommufdRequestName } from "../../layouts/uapi/index.ts";
import type { OpenFile, UserProcess } from "../../platform/index.ts";
import { type Argument, ArgumentBytes, CallStruct, readUser, setUserBits, vendorData, writeUser } from "./caller.ts";
import { containerCall } from "./container-calls.ts";
import { readDirty, setDirtyTracking } from "./dirty.ts";
import { badArgument, badFile, notPrivileged, notSupported, tooManyRanges, unknownRequest, wraps } from "./errors.ts";
import { Iommufd, type IommufdOptions, type MapRequest } from "./iommufd.ts";
import { LAST_IOVA } from "./ranges.ts";

type Handler = (iommufd: Iommufd, call: CallStruct) => void;

const KNOWN_MAP_FLAGS = IOAS_MAP_FLAGS.FIXED_IOVA | IOAS_MAP_FLAGS.READABLE | IOAS_MAP_FLAGS.WRITEABLE;

/** @throws DmaError ERR_DMA_IOMMUFD_UNSUPPORTED (EOPNOTSUPP) unless all are zero */
function mustBeZero(call: CallStruct, ...names: string[]): void {
  for (const name of names) if (call.get(name) !== 0) throw notSupported(`a value of ${call.get(name)} in ${name}`);
}

/** The same of words that Linux does not look at. */
function shouldBeZero(iommufd: Iommufd, call: CallStruct, name: string): void {
  if (iommufd.rules.reservedWordsAreChecked) mustBeZero(call, name);
}

function knownFlags(call: CallStruct, known: number): number {
  const flags = call.get("flags");
  if ((flags & ~known) !== 0) throw notSupported(`flags ${flags}`);
  return flags;
}

/** What MAP, MAP_FILE and COPY have in common. */
function mapRequest(call: CallStruct, iovaField: string, flags: number): MapRequest {
  const isFixed = (flags & IOAS_MAP_FLAGS.FIXED_IOVA) !== 0;
  return {
    length: call.get64("length"),
    iova: isFixed ? call.get64(iovaField) : undefined,
    read: (flags & IOAS_MAP_FLAGS.READABLE) !== 0,
    write: (flags & IOAS_MAP_FLAGS.WRITEABLE) !== 0,
  };
}

function mustBeBelowLast(call: CallStruct, ...names: string[]): void {
  for (const name of names) if (call.get64(name) === LAST_IOVA) throw wraps(call.get64(name), 1n);
}

function mustAllowSomething({ read, write }: MapRequest): void {
  if (!read && !write) throw badArgument("neither reading nor writing");
}

/** Gives an answer out; if the caller cannot take it, what was made ends again. */
function respondOr(call: CallStruct, undo: () => void): void {
  try {
    call.respond();
  } catch (error) {
    undo();
    throw error;
  }
}

const HANDLERS: Readonly<Record<IommufdRequestName, Handler>> = {
  destroy: (iommufd, call) => iommufd.destroy(call.get("id")),

  ioasAlloc(iommufd, call) {
    knownFlags(call, 0);
    const ioas = iommufd.createIoas();
    call.set("out_ioas_id", ioas.id);
    respondOr(call, () => iommufd.destroy(ioas.id));
  },

  allowIovas(iommufd, call) {
    mustBeZero(call, "__reserved");
    const ioas = iommufd.ioas(call.get("ioas_id"));
    const ranges = [];
    for (let i = 0; i < call.get("num_iovas"); i++) {
      const bytes = readUser(call.process, call.get64("allowed_iovas") + BigInt(i * 16), 16);
      const view = new DataView(bytes.buffer);
      const range = { first: view.getBigUint64(0, true), last: view.getBigUint64(8, true) };
      if (range.first >= range.last) throw badArgument("an empty range");
      ranges.push(range);
    }
    ioas.allow(ranges);
  },

  copy(iommufd, call) {
    const flags = knownFlags(call, KNOWN_MAP_FLAGS);
    mustBeBelowLast(call, "length", "src_iova", "dst_iova");
    const request = mapRequest(call, "dst_iova", flags);
    mustAllowSomething(request);
    const source = iommufd.ioas(call.get("src_ioas_id"));
    // The source is looked at before the destination's id.
    source.partsAt(call.get64("src_iova"), request.length);
    const to = iommufd.ioas(call.get("dst_ioas_id"));
    call.set("dst_iova", iommufd.copy(source, call.get64("src_iova"), to, request));
    call.respond();
  },

  iovaRanges(iommufd, call) {
    mustBeZero(call, "__reserved");
    const ioas = iommufd.ioas(call.get("ioas_id"));
    const room = call.get("num_iovas");
    const ranges = ioas.usable;
    ranges.slice(0, room).forEach(({ first, last }, i) => {
      const bytes = new Uint8Array(16);
      const view = new DataView(bytes.buffer);
      view.setBigUint64(0, first, true);
      view.setBigUint64(8, last, true);
      writeUser(call.process, call.get64("allowed_iovas") + BigInt(i * 16), bytes);
    });
    call.set("num_iovas", ranges.length);
    call.set("out_iova_alignment", ioas.alignment);
    call.respond();
    if (ranges.length > room) throw tooManyRanges(ranges.length, room);
  },

  map(iommufd, call) {
    const flags = knownFlags(call, KNOWN_MAP_FLAGS);
    mustBeZero(call, "__reserved");
    mustBeBelowLast(call, "iova", "length");
    const request = mapRequest(call, "iova", flags);
    mustAllowSomething(request);
    const ioas = iommufd.ioas(call.get("ioas_id"));
    call.set("iova", iommufd.map(ioas, call.process, call.get64("user_va"), request));
    call.respond();
  },

  mapFile(iommufd, call) {
    const flags = knownFlags(call, KNOWN_MAP_FLAGS);
    mustBeBelowLast(call, "iova", "length");
    const request = mapRequest(call, "iova", flags);
    mustAllowSomething(request);
    const ioas = iommufd.ioas(call.get("ioas_id"));
    const descriptor = call.process.descriptors.get(call.getSigned("fd"));
    if (!descriptor) throw badFile("EBADF", `descriptor ${call.getSigned("fd")} is not open`);
    if (iommufd.rules.filesAreChecked && request.write && !descriptor.writable)
      throw badFile("EPERM", "the descriptor is for reading only");
    call.set("iova", iommufd.mapFile(ioas, call.process, descriptor.file, call.get64("start"), request));
    call.respond();
  },

  unmap(iommufd, call) {
    const ioas = iommufd.ioas(call.get("ioas_id"));
    const [iova, length] = [call.get64("iova"), call.get64("length")];
    let unmapped: bigint;
    if (iova === 0n && length === LAST_IOVA) unmapped = ioas.unmapAll();
    else {
      mustBeBelowLast(call, "iova", "length");
      unmapped = ioas.unmap(iova, length);
      if (unmapped === 0n) throw nothingThere(iova, length);
    }
    call.set("length", unmapped);
    call.respond();
  },

  option(iommufd, call) {
    mustBeZero(call, "__reserved");
    const value = call.get("option_id") === 0 ? accountOption(iommufd, call) : spaceOption(iommufd, call);
    if (value !== undefined) call.set("val64", value);
    call.respondField("val64");
  },

  vfioIoas(iommufd, call) {
    mustBeZero(call, "__reserved");
    switch (call.get("op")) {
      case 0:
        call.set("ioas_id", iommufd.needCompatIoas().id);
        call.respond();
        return;
      case 1:
        iommufd.compatIoas = iommufd.ioas(call.get("ioas_id"));
        return;
      case 2:
        iommufd.compatIoas = undefined;
        return;
      default:
        throw notSupported(`operation ${call.get("op")}`);
    }
  },

  hwptAlloc(iommufd, call) {
    const known = HWPT_FLAGS.NEST_PARENT | HWPT_FLAGS.DIRTY_TRACKING | HWPT_FLAGS.FAULT_ID_VALID | HWPT_FLAGS.PASID;
    const flags = call.get("flags");
    mustBeZero(call, "__reserved");
    shouldBeZero(iommufd, call, "__reserved2");
    const [type, length] = [call.get("data_type"), call.get("data_len")];
    if ((type === 0) !== (length === 0)) throw badArgument("data without a type, or a type without data");
    const device = call.get("dev_id");
    if ((flags & ~known) !== 0) throw notSupported(`flags ${flags}`);
    const hwpt = iommufd.createHwpt({
      device,
      parent: call.get("pt_id"),
      flags,
      data: type === 0 ? undefined : vendorData(call.process, type, length, call.get64("data_uptr")),
      faultQueue: call.get("fault_id"),
    });
    call.set("out_hwpt_id", hwpt.id);
    respondOr(call, () => iommufd.destroy(hwpt.id));
  },

  getHwInfo(iommufd, call) {
    const flags = knownFlags(call, 1);
    mustBeZero(call, "__reserved0", "__reserved1");
    const { hardware } = iommufd.device(call.get("dev_id"));
    const info = hardware.hardwareInfo(flags === 1 ? call.get("data_type") : 0);
    const room = call.get("data_len");
    const bytes = new Uint8Array(Math.min(room, MOST_INFO_BYTES));
    bytes.set(info.data.subarray(0, bytes.length));
    writeUser(call.process, call.get64("data_uptr"), bytes);
    call.set("data_len", info.data.length);
    call.set("data_type", info.type);
    call.set("out_max_pasid_log2", hardware.pasidBits);
    call.set("out_capabilities", hardware.capabilities | (hardware.canTrackDirty ? 1 : 0));
    call.respond();
  },

  setDirtyTracking(iommufd, call) {
    const flags = knownFlags(call, 1);
    shouldBeZero(iommufd, call, "__reserved");
    setDirtyTracking(iommufd.pagingHwpt(call.get("hwpt_id")), flags === 1);
  },

  getDirtyBitmap(iommufd, call) {
    const flags = knownFlags(call, 1);
    mustBeZero(call, "__reserved");
    const hwpt = iommufd.pagingHwpt(call.get("hwpt_id"));
    const request = {
      iova: call.get64("iova"),
      length: call.get64("length"),
      pageBytes: call.get64("page_size"),
      clear: flags === 0,
    };
    readDirty(hwpt, request, (page, pages) => setUserBits(call.process, call.get64("data"), page, pages));
  },

  invalidate(iommufd, call) {
    const asked = call.get("entry_num");
    call.set("entry_num", 0);
    try {
      call.set("entry_num", invalidate(iommufd, call, asked));
    } catch (error) {
      if (error instanceof PartlyDone) {
        call.set("entry_num", error.done);
        call.respond();
        throw error.reason;
      }
      call.respond();
      throw error;
    }
    call.respond();
  },

  faultQueueAlloc(iommufd, call) {
    knownFlags(call, 0);
    const queue = iommufd.createFaultQueue();
    const fd = call.process.descriptors.install(queue.file);
    call.set("out_fault_id", queue.id);
    call.set("out_fault_fd", fd);
    respondOr(call, () => {
      call.process.descriptors.close(fd);
      iommufd.destroy(queue.id);
    });
  },

  viommuAlloc(iommufd, call) {
    knownFlags(call, 0);
    shouldBeZero(iommufd, call, "__reserved");
    const length = call.get("data_len");
    const data = length === 0 ? undefined : vendorData(call.process, call.get("type"), length, call.get64("data_uptr"));
    const viommu = iommufd.createViommu(call.get("type"), call.get("dev_id"), call.get("hwpt_id"), data);
    call.set("out_viommu_id", viommu.id);
    respondOr(call, () => iommufd.destroy(viommu.id));
  },

  vdeviceAlloc(iommufd, call) {
    const vdevice = iommufd.createVdevice(call.get("viommu_id"), call.get("dev_id"), call.get64("virt_id"));
    call.set("out_vdevice_id", vdevice.id);
    respondOr(call, () => iommufd.destroy(vdevice.id));
  },

  changeProcess(iommufd, call) {
    mustBeZero(call, "__reserved");
    iommufd.changeProcess(call.process);
  },

  veventqAlloc(iommufd, call) {
    knownFlags(call, 0);
    mustBeZero(call, "__reserved");
    const queue = iommufd.createEventQueue(call.get("viommu_id"), call.get("type"), call.get("veventq_depth"));
    const fd = call.process.descriptors.install(queue.file);
    call.set("out_veventq_id", queue.id);
    call.set("out_veventq_fd", fd);
    respondOr(call, () => {
      call.process.descriptors.close(fd);
      iommufd.destroy(queue.id);
    });
  },

  hwQueueAlloc(iommufd, call) {
    knownFlags(call, 0);
    if (call.get("type") === 0) throw notSupported("hardware queues of type 0");
    const queue = iommufd.createHardwareQueue(
      call.get("viommu_id"),
      call.get("type"),
      call.get("index"),
      call.get64("nesting_parent_iova"),
      call.get64("length"),
    );
    call.set("out_hw_queue_id", queue.id);
    respondOr(call, () => iommufd.destroy(queue.id));
  },
};

const MOST_INFO_BYTES = 1 << 20;

const nothingThere = (iova: bigint, length: bigint): DmaError =>
  new DmaError("ERR_DMA_NOT_MAPPED", "ENOENT", `nothing is mapped in ${length} bytes at IOVA ${iova}`, {
    iova,
    length,
  });

/** GET says it, SET changes it. */
function accountOption(iommufd: Iommufd, call: CallStruct): number | undefined {
  if (call.get("object_id") !== 0) throw notSupported("an object with this option");
  if (call.get("op") === 1) return iommufd.accountMode === "memory" ? 1 : 0;
  if (call.get("op") !== 0) throw notSupported(`operation ${call.get("op")}`);
  if (!call.process.has("SYS_RESOURCE")) throw notPrivileged("changing who is charged needs CAP_SYS_RESOURCE");
  const value = call.get64("val64");
  if (value > 1n && iommufd.objects.size === 0) throw badArgument(`mode ${value}`);
  iommufd.setAccountMode(value === 1n ? "memory" : "user", call.process);
  return undefined;
}

function spaceOption(iommufd: Iommufd, call: CallStruct): number | undefined {
  if (call.get("option_id") !== 1) throw notSupported(`option ${call.get("option_id")}`);
  const ioas = iommufd.ioas(call.get("object_id"));
  if (call.get("op") === 1) return ioas.largePages ? 1 : 0;
  if (call.get("op") !== 0) throw notSupported(`operation ${call.get("op")}`);
  const value = call.get64("val64");
  if (value > 1n) throw badArgument(`a value of ${value}: 0 or 1 is needed`);
  ioas.setLargePages(value === 1n);
  return undefined;
}

/** Some entries were done, and the next was refused. */
class PartlyDone extends Error {
  readonly done: number;
  readonly reason: Error;

  constructor(done: number, reason: Error) {
    super(reason.message);
    this.done = done;
    this.reason = reason;
  }
}

const MOST_ENTRY_BYTES = 4096;
const MOST_ENTRIES = 2 ** 19;

function invalidate(iommufd: Iommufd, call: CallStruct, count: number): number {
  mustBeZero(call, "__reserved");
  const bytes = call.get("entry_len");
  if (count > 0 && (call.get64("data_uptr") === 0n || bytes === 0 || bytes > MOST_ENTRY_BYTES || count > MOST_ENTRIES))
    throw badArgument(`${count} entries of ${bytes} bytes`);
  const target = iommufd.invalidationTarget(call.get("hwpt_id"));
  if (target.type !== call.get("data_type")) throw badArgument(`entries of type ${call.get("data_type")}`);
  if (count === 0) return 0;
  if (bytes < target.leastBytes && !target.takesWhole) throw badArgument(`entries of ${bytes} bytes are too short`);
  if (bytes > target.mostBytes && !target.takesWhole) throw badArgument(`entries of ${bytes} bytes are too long`);
  const entries: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    const entry = readUser(call.process, call.get64("data_uptr") + BigInt(i * bytes), bytes);
    if (entry.subarray(target.mostBytes).some((byte) => byte !== 0))
      throw new DmaError(
        "ERR_DMA_IOMMUFD_ARGUMENT",
        "E2BIG",
        "an entry is longer than known, and its tail is not zero",
      );
    const whole = new Uint8Array(target.mostBytes);
    whole.set(entry.subarray(0, target.mostBytes));
    entries.push(whole);
  }
  const { done, refused } = target.invalidate(entries);
  if (refused) throw new PartlyDone(done, refused);
  return done;
}

const BY_NUMBER: ReadonlyMap<number, IommufdRequestName> = new Map(
  (Object.keys(IOMMUFD_REQUESTS) as IommufdRequestName[]).map((name) => [IOMMUFD_REQUESTS[name].number, name]),
);

/** How a /dev/iommu file is opened. */
export interface IommufdFileOptions extends IommufdOptions {
  /** An iommufd that there is, in the place of a new one. */
  readonly iommufd?: Iommufd;
}

/** An open /dev/iommu. A descriptor can name it, and a device be bound to it. */
export class IommufdFile implements OpenFile {
  readonly kind = "iommufd";
  readonly iommufd: Iommufd;

  constructor(options: IommufdFileOptions = {}) {
    this.iommufd = options.iommufd ?? new Iommufd(options);
  }

  /**
   * One request.
   *
   * @param number what ioctl takes; the lower 32 bits count
   * @param argument the structure, changed in place; or its address in the caller's memory
   * @returns 0 or what the request says; a negative errno
   */
  ioctl(number: number, argument: Argument, caller: UserProcess): number {
    try {
      return this.#call(number >>> 0, argument, caller);
    } catch (error) {
      if (error instanceof DmaError) return -ERRNO[error.errno];
      throw error;
    }
  }

  #call(number: number, argument: Argument, caller: UserProcess): number {
    const name = BY_NUMBER.get(number);
    if (name === undefined) {
      const isOwn = (number & 0xff) >= 0x80 && (number & 0xff) <= 0x94;
      if (isOwn) throw unknownRequest(number);
      return containerCall(this.iommufd, number, argument, caller);
    }
    const request = IOMMUFD_REQUESTS[name];
    const at = new ArgumentBytes(argument, caller);
    const size = new DataView(at.read(4).buffer).getUint32(0, true);
    if (size < request.least) throw badArgument(`a structure of ${size} bytes: ${request.least} are needed`);
    HANDLERS[name](this.iommufd, new CallStruct(at, request.layout, size));
    return 0;
  }

  acquire(): void {
    this.iommufd.acquire();
  }

  release(): void {
    this.iommufd.release();
  }
}
