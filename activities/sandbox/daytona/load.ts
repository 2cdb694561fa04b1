import type { Daytona } from '@daytonaio/sdk';
import { LonghaulError } from '../../../contracts/error-codes.ts';

/** What of the SDK is used; both packages of the vendor have it. */
export interface DaytonaSdk {
  Daytona: typeof Daytona;
}

/** Same code under two names; the first is the one the vendor goes on with. */
const PACKAGES = ['@daytona/sdk', '@daytonaio/sdk'];

let loaded: Promise<DaytonaSdk> | undefined;

/** The vendor's SDK, loaded when it is first needed: it is an optional peer of a hundred megabytes. */
export function loadDaytona(packages: string[] = PACKAGES): Promise<DaytonaSdk> {
  if (packages !== PACKAGES) return load(packages);
  loaded ??= load(packages).catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  return loaded;
}

async function load(packages: string[]): Promise<DaytonaSdk> {
  for (const name of packages) {
    try {
      return (await import(name)) as DaytonaSdk;
    } catch (error) {
      if (!isMissing(error, name)) throw error;
    }
  }
  throw new LonghaulError(
    'sandbox_unsupported',
    `the provider daytona needs the SDK: npm install ${packages[0] ?? '@daytona/sdk'}`,
  );
}

/** Not there itself; something it needs that is not there is another matter. Bundlers tell it in words of their own. */
function isMissing(error: unknown, name: string): boolean {
  const text = String(error);
  const isNodes = (error as NodeJS.ErrnoException).code === 'ERR_MODULE_NOT_FOUND' && text.includes(`'${name}'`);
  return isNodes || text.includes(`Could not resolve "${name}"`);
}
