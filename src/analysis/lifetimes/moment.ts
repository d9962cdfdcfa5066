/** The event that is being followed: its time, CPU and task. One object, filled anew for each event. */
import type { Place } from "./history.ts";

/** The event at hand, filled by the reader of events. */
export class Moment implements Place {
  timeNs = 0;
  cpu = 0;
  pid = 0;
  task = 0;
  type = 0;
  site = 0;
  /** The call is of a device's memory, not of RAM. */
  isOfDeviceMemory = false;

  set({ timeNs, cpu, pid, task, type, site }: Place): void {
    this.timeNs = timeNs;
    this.cpu = cpu;
    this.pid = pid;
    this.task = task;
    this.type = type;
    this.site = site;
  }

  /** A copy that stays. */
  copy(): Place {
    const { timeNs, cpu, pid, task, type, site } = this;
    return { timeNs, cpu, pid, task, type, site };
  }
}
