-- Every CT series of NLST and every segmentation that somebody published for one, from the packaged index (DuckDB).
SELECT * FROM series WHERE collection = 'nlst' AND modality IN ('CT', 'SEG')
