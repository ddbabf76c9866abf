// Every way in which a test of Vitest ends, and a name that is hostile.
import { beforeEach, describe, expect, test } from 'vitest';
let sold = 0;
describe('shop', () => {
  beforeEach(() => { sold = 0; });
  test('sells', () => { console.log('hello'); sold += 1; expect(sold).toBe(1); });
  test('fails', () => { expect({ stock: 1 }).toEqual({ stock: 2 }); });
  test.skip('skips', () => {});
  test.todo('later');
  test("it's $(touch owned) \"q\" (a|b) `x` ; rm -rf é", async () => { await new Promise((r) => setTimeout(r, 20)); });
  describe('nested::deep', () => {
    test('twice', () => {});
    test('twice', () => { throw new Error('the second'); });
  });
  test.each([['a b', 1], ['a  b', 2]])('table %s', (_, n) => { expect(n).toBe(1); });
});
test('loose', () => {});
