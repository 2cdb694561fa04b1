import { readFile, writeFile } from 'node:fs/promises';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { parseRouteFile } from '../../gateway/routing/route-file.ts';
import { inheritedEnvironment } from '../config.ts';
import { EXIT, messageOf, print, printJson, say } from '../output.ts';

interface ImportOptions {
  output: string | undefined;
  json: boolean;
}

/** Shows what becomes of a LiteLLM `config.yaml`: what was taken, and of each other key why not. */
export async function importLitellm(file: string, { output, json }: ImportOptions): Promise<number> {
  const environment = inheritedEnvironment();
  const read = await parseRouteFile(await readText(file), (name) => environment[name]);
  if (read.format !== 'litellm') {
    say(`${file} is no configuration of LiteLLM: it has no model_list.`);
    return EXIT.failed;
  }
  const { taken, ignored } = read;
  if (json) printJson({ taken, ignored, config: read.file });
  else {
    print(`Taken from ${file}:`);
    for (const line of taken) print(`  ${line}`);
    print(ignored.length === 0 ? 'Nothing is ignored.' : 'Ignored:');
    for (const line of ignored) print(`  ${line}`);
  }
  if (output !== undefined) {
    const { stringify } = await import('yaml');
    await writeFile(output, stringify(read.file));
    say(`Wrote ${output}. Use it with LONGHAUL_GATEWAY_CONFIG=${output}; no key is in it.`);
  } else say(`Use it as it is with LONGHAUL_GATEWAY_CONFIG=${file}, or write our shape with --output.`);
  return EXIT.ok;
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new LonghaulError('setup_required', `${file} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}
