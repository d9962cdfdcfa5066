/**
 * The fault log of a VT-d unit: its records are read, given back, and become events.
 *
 * Idea: records are a ring of registers; from the first with a fault on, each is read, cleared and followed by the next,
 * until one has none. Only then are the status bits cleared, so that nothing that came meanwhile is missed for long.
 * Promises: never throws; every record is given back, also when nobody has room for its event.
 * Specified by: VT-d specification, 7.3 and 11.4.14; behaviour of Linux 7.2 (drivers/iommu/intel/dmar.c).
 */

import { FAULT_STATUS } from "../../layouts/vtd/index.ts";
import type { Clock, VtdRegisters } from "../../platform/index.ts";
import type { FaultEvents } from "../fault-events.ts";
import type { VtdFault } from "./fault-events.ts";
import { decodeFaultRecord, isFault } from "./fault-record.ts";

export class FaultLog {
  readonly #registers: VtdRegisters;
  readonly #records: number;
  readonly #events: FaultEvents<VtdFault>;
  readonly #clock: Clock;

  constructor(registers: VtdRegisters, records: number, events: FaultEvents<VtdFault>, clock: Clock) {
    this.#registers = registers;
    this.#records = records;
    this.#events = events;
    this.#clock = clock;
  }

  /** Turns what the unit recorded into events: how many. To be called at the unit's fault interrupt, or at any time. */
  read(): number {
    const registers = this.#registers;
    const status = registers.readFaultStatus();
    const timeMs = this.#clock.nowMs();
    let index = (status >>> FAULT_STATUS.firstRecordShift) & 0xff;
    let read = 0;
    if ((status & FAULT_STATUS.pending) !== 0)
      for (; read < this.#records; read++) {
        const dword3 = registers.readFaultRecord(index, 3);
        if (!isFault(dword3)) break;
        const [dword0, dword1, dword2] = [0, 1, 2].map((word) => registers.readFaultRecord(index, word));
        registers.clearFaultRecord(index);
        this.#events.push({
          kind: "translation",
          timeMs,
          ...decodeFaultRecord(dword0!, dword1!, dword2!, dword3),
        });
        index = (index + 1) % this.#records;
      }
    if ((status & FAULT_STATUS.overflow) !== 0) this.#events.push({ kind: "records-lost", timeMs });
    registers.clearFaultStatus(status & (FAULT_STATUS.overflow | FAULT_STATUS.pageRequestOverflow));
    return read;
  }
}
