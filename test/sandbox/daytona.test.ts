import { sandboxConformance } from '../conformance/sandbox.suite.ts';
import { makeDaytonaBed } from '../support/daytona-bed.ts';

sandboxConformance('daytona, the vendor’s SDK over a double of its service', makeDaytonaBed);
