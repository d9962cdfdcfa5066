/**
 * /dev/iommu as programs see it: requests by number, structures as bytes, answers as errnos. The second door.
 *
 * Idea: a table names for each request its structure and what to do; the checks of sizes are the same for all. Numbers that are
 * not iommufd's own are those of VFIO containers, for programs of before.
 * Promises: answers, errnos and what is left in the caller's memory equal Linux's; no argument makes it throw.
 * Specified by: include/uapi/linux/iommufd.h; behaviour of Linux 7.2; judged by test/golden/iommufd.
 */
import { DmaError, ERRNO } from "../../base/index.ts";
import { IOMMUFD_REQUESTS, type IommufdRequestName } from "../../layouts/uapi/index.ts";
import type { OpenFile, UserProcess } from "../../platform/index.ts";
import { type Argument, ArgumentBytes, CallStruct } from "./caller.ts";
import { containerCall } from "./container-calls.ts";
import { badArgument, unknownRequest } from "./errors.ts";
import { Iommufd } from "./iommufd.ts";
import type { IommufdOptions } from "./iommufd-memory.ts";
import { REQUEST_HANDLERS } from "./requests.ts";

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
  /** What the requests are made of. */
  readonly iommufd: Iommufd;

  /** As open() does it: an iommufd of its own, with nothing in it. Its first holder acquires it. */
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
    REQUEST_HANDLERS[name](this.iommufd, new CallStruct(at, request.layout, size));
    return 0;
  }

  acquire(): void {
    this.iommufd.acquire();
  }

  release(): void {
    this.iommufd.release();
  }
}
