"""The weights that find people in pictures: fetched, trained, made smaller."""
