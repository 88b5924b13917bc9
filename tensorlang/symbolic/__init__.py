"""Symbolic analysis (layer 2): `Expr` is the only stored form; each module is a view of it with one job.

affine        polynomials: like terms, linear forms
interval      constant bounds of polynomials; what is known of variables (`Ranges`, `Interval`, `SIZE`)
simplify      the one simplifier
bounds        symbolic bounds; proofs of conditions
region        the box of a buffer that a statement touches
access        every access of a loop nest, with its loops and conditions
integer_set   examples and proofs by integer sets (islpy)
    conflict      whether two iterations touch the same element
sympy_view    equality and division of symbolic shapes (sympy)
"""
