/** `dmalink help`: of a command, of all of them, or as a manual page. */
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import { flag } from "../options.ts";
import { nearest } from "../terminal/did-you-mean.ts";
import { print } from "../terminal/print.ts";

export const help: Command = command({
  name: "help",
  summary: "what a command does and takes; of all of them as a manual page",
  description: "Without a command, what commands there are.",
  arguments: [{ name: "COMMAND", meaning: "the command", optional: true }],
  options: { man: flag("the manual page of all commands, for man -l") },
  examples: ["dmalink help check", "dmalink help --man | man -l -"],
  async run({ arguments: [asked], options, program }) {
    const { commandHelp, programHelp } = await import("../terminal/help.ts");
    const { manPage } = await import("../terminal/man-page.ts");
    if (options.man) print(manPage(program));
    else if (asked === undefined) print(programHelp(program));
    else {
      const found = program.commands.find(({ name }) => name === asked);
      if (!found) {
        const near = nearest(
          asked,
          program.commands.map(({ name }) => name),
        );
        throw new UsageError(`no command "${asked}"${near === undefined ? "" : `; did you mean ${near}?`}`);
      }
      print(commandHelp(found));
    }
    return 0;
  },
});
