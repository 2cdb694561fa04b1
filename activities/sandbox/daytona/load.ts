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
      const code = (error as NodeJS.ErrnoException).code;
      const isMissing = code === 'ERR_MODULE_NOT_FOUND' && String(error).includes(`'${name}'`);
      if (!isMissing) throw error;
    }
  }
  throw new LonghaulError(
    'sandbox_unsupported',
    `the provider daytona needs the SDK: npm install ${packages[0] ?? '@daytona/sdk'}`,
  );
}
