#!/usr/bin/env bash
# Runs the tour of tensors and compares all that it prints.
. "$(dirname "$0")/trial.sh"
expect 0 ""
diff out - <<'END' || fail "another output"
x                                  [2, 3]     [[1, 2, 3], [4, 5, 6]]

Views: the same memory with another shape and other strides
transpose(x)                       [3, 2]     [[1, 4], [2, 5], [3, 6]]
strides [3, 1] became [1, 3], nothing was copied
slice(x, 1, 1, 3)                  [2, 2]     [[2, 3], [5, 6]]
select(x, 0, 1)                    [3]        [4, 5, 6]
reshape(x, {3, -1})                [3, 2]     [[1, 2], [3, 4], [5, 6]]
permute(x as [1, 2, 3], {2, 0, 1}) [3, 1, 2]  [[[1, 4]], [[2, 5]], [[3, 6]]]

Ops give new tensors; shapes broadcast as in NumPy
x + column                         [2, 3]     [[11, 12, 13], [24, 25, 26]]
x * row - 0.5                      [2, 3]     [[0.5, -0.5, -3.5], [3.5, -0.5, -6.5]]
matmul(x, transpose(x))            [2, 2]     [[14, 32], [32, 77]]
batches: [2, 1, 3] by [3, 1]       [2, 1, 1]  [[[-2]], [[-2]]]

Reductions over all elements, or over some dimensions
sum(x)                             []         21
mean(x, {0})                       [3]        [2.5, 3.5, 4.5]
sum(x, {1}, true)                  [2, 1]     [[6], [15]]
max(x, 1).values                   [2]        [3, 6]
softmax(x)                         [2, 3]     [[0.0900306, 0.244728, 0.665241], [0.0900306, 0.244728, 0.665241]]
rows of mean 0 and variance 1      [2, 3]     [[-1.22474, 0, 1.22474], [-1.22474, 0, 1.22474]]

Indices are tensors, too, and masks are tensors of ones and zeros
index_select(x, 1, [2, 0])         [2, 2]     [[3, 1], [6, 4]]
argmax(x * row, 1)                 [2]        [0, 0]
greater(x, 2.5)                    [2, 3]     [[0, 0, 1], [1, 1, 1]]
where(greater(x, 2.5), x, -x)      [2, 3]     [[-1, -2, 3], [4, 5, 6]]
concat({x, column}, 1)             [2, 4]     [[1, 2, 3, 10], [4, 5, 6, 20]]

Types: bf16 has 8 bits of precision, but sums are made in float
1/3 as bf16                        []         0.333984
a thousand ones in bf16            []         1000

Mistakes are exceptions that say what and where
matmul: inner dimensions differ: lhs [2, 3], rhs [2, 3] (3 vs 2)
END
finish
