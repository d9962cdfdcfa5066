/** The commands, in the order in which help lists them. A command is added here, and nowhere else. */
import type { Command } from "../command.ts";
import { bind } from "./bind.ts";
import { check } from "./check.ts";
import { compare } from "./compare.ts";
import { completion } from "./completion.ts";
import { diff } from "./diff.ts";
import { doctor } from "./doctor.ts";
import { exportCommand } from "./export.ts";
import { help } from "./help.ts";
import { query } from "./query.ts";
import { record } from "./record.ts";
import { sim } from "./sim.ts";
import { stats } from "./stats.ts";
import { tables } from "./tables.ts";
import { ui } from "./ui.ts";
import { unbind } from "./unbind.ts";
import { version } from "./version.ts";

export const COMMANDS: readonly Command[] = [
  record,
  check,
  stats,
  compare,
  diff,
  exportCommand,
  query,
  tables,
  ui,
  sim,
  doctor,
  bind,
  unbind,
  help,
  completion,
  version,
];
