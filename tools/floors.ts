/**
 * The floors check: every import in `src` goes downward, enters folders by their face, and keeps Node out of the
 * rooms that also run in a browser. Reads the code through TypeScript's own parser. Exit 1 on a breach.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { CONSUMERS, DEBTS, FLOORS, NODE_ALLOWED, SPLIT } from "../src/floors.ts";

const top = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const src = join(top, "src");

const sources = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return sources(path);
    return /\.tsx?$/.test(entry.name) && !/\.(test|bench)\.ts$/.test(entry.name) ? [path] : [];
  });

const floorOf = (room: string): number => FLOORS.findIndex((rooms) => rooms.includes(room));
const roomOf = (file: string): string => {
  const [first, second] = relative(src, file).split("/");
  return SPLIT.includes(first!) && second && !second.endsWith(".ts") ? `${first}/${second}` : first!;
};

const breaches: string[] = [];
for (const file of sources(src)) {
  const name = relative(src, file);
  const room = roomOf(file);
  const folder = room.split("/")[0]!;
  const atTop = !name.includes("/"); // index.ts, floors.ts: the public face may take from every room
  if (!atTop && floorOf(folder) < 0) breaches.push(`${name}: the folder ${folder} stands on no floor (src/floors.ts)`);
  const { importedFiles } = ts.preProcessFile(readFileSync(file, "utf8"), true, true);
  for (const { fileName: specifier } of importedFiles) {
    if (specifier.startsWith("node:") && !NODE_ALLOWED.some((allowed) => name.startsWith(`${allowed}/`)))
      breaches.push(`${name}: uses ${specifier}, but only ${NODE_ALLOWED.join(" and ")} may use Node's own modules`);
    if (!specifier.startsWith(".")) continue;
    const target = resolve(dirname(file), specifier);
    const targetName = relative(src, target);
    const targetRoom = roomOf(target);
    if (targetRoom === room) continue;
    if (DEBTS.some((debt) => debt.from === name && debt.to === targetName)) continue;
    const targetFolder = targetRoom.split("/")[0]!;
    if (!targetName.endsWith("index.ts") && targetFolder !== "public")
      breaches.push(`${name}: imports ${targetName} past the face of ${targetRoom} (its index.ts)`);
    if (atTop) continue;
    const [from, to] = [floorOf(folder), floorOf(targetFolder)];
    const level = (r: string): number => CONSUMERS.findIndex((rooms) => rooms.includes(r.split("/")[1] ?? ""));
    const inOrder = folder === "consumers" && targetFolder === "consumers" && level(targetRoom) < level(room);
    const siblings = folder === targetFolder && folder !== "consumers" && folder !== "hosts" && folder !== "apps";
    if (to >= from && !inOrder && !siblings)
      breaches.push(
        `${name}: imports ${targetName}, which is not on a floor below (${folder} is ${from}, ${targetFolder} is ${to})`,
      );
  }
}
for (const breach of breaches) process.stderr.write(`${breach}\n`);
process.stdout.write(breaches.length ? `floors: ${breaches.length} breaches\n` : "floors: every import goes down\n");
process.exit(breaches.length ? 1 : 0);
