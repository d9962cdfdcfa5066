/**
 * What a host shows of its secured devices: the files of a function in sysfs, by name.
 *
 * Idea: whether a file is there was decided when the function last changed, as in Linux; what it says is asked when it is read.
 * On functions that can manage a device all files are there as long as a link manager is; on others three, once they are
 * secured.
 * Trap: `authenticated` is the state of the link to the device. It says nothing of trust in the function.
 * Specified by: behaviour of the Linux 7.2 PCI TSM core, judged by test/golden/tsm.
 */

import type { SecurityFunction } from "../../../platform/index.ts";
import { noSuchFile } from "../errors.ts";
import { canManage } from "./device-manager.ts";
import { LinkCore, type LinkCoreOptions } from "./link-core.ts";

/** Files of a function. `disconnect` can only be written. */
export type LinkFile = "tsm/connect" | "tsm/dsm" | "tsm/bound" | "authenticated" | "tsm/disconnect";

const OF_MANAGERS: ReadonlySet<LinkFile> = new Set(["tsm/connect", "tsm/disconnect"]);

/** Files of all functions, over a core of their own. */
export class LinkFiles {
  /** What the files are about. */
  readonly core: LinkCore;
  readonly #visible = new Map<SecurityFunction, { readonly manages: boolean }>();

  /** Makes the core, and follows what changes in it. */
  constructor(options: Omit<LinkCoreOptions, "onChange">) {
    this.core = new LinkCore({ ...options, onChange: (fn) => this.#update(fn) });
  }

  /** Is the file there? */
  has(fn: SecurityFunction, file: LinkFile): boolean {
    const visible = this.#visible.get(fn);
    return visible !== undefined && (visible.manages || !OF_MANAGERS.has(file));
  }

  /** What the file says, without the newline; undefined if it is not there, or cannot be read. */
  read(fn: SecurityFunction, file: LinkFile): string | undefined {
    if (!this.has(fn, file) || file === "tsm/disconnect") return undefined;
    const context = this.core.context(fn);
    if (!context) return "";
    if (file === "tsm/dsm") return context.manager.name;
    if (file === "tsm/bound" && !context.bound) return "";
    return this.core.manager(fn)!.name;
  }

  /**
   * Writes a file. Writing nothing does nothing.
   *
   * @throws DmaError ERR_DMA_TSM_FILE (ENOENT) if it is not there; those of {@link LinkCore.connect} and
   *   {@link LinkCore.disconnect}
   */
  async write(fn: SecurityFunction, file: "tsm/connect" | "tsm/disconnect", text: string): Promise<void> {
    if (!this.has(fn, file)) throw noSuchFile(fn.name, file);
    if (text === "") return;
    if (file === "tsm/connect") await this.core.connect(fn, text);
    else await this.core.disconnect(fn, text);
  }

  #update(fn: SecurityFunction): void {
    const manages = canManage(fn);
    const isVisible =
      this.core.linkManagers > 0 && fn.kind !== undefined && (manages || this.core.context(fn) !== undefined);
    if (isVisible) this.#visible.set(fn, { manages });
    else this.#visible.delete(fn);
  }
}
